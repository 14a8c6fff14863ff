//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The textbook relay: what arrives at one socket is sent by its peer, and no
 * program sees it. UNSAFE, and here only to be measured: see package sockmap.
 */
#include "kernel.h"

/* User API: laid out for good, so without relocation. */
struct __sk_buff {
	__u32 len;
};

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Where to send: the peer of each socket, by that socket's cookie. No program is
 * attached here, so that to be a peer does not mean to be listened to. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} peers SEC(".maps");

/* The sockets that are listened to, by their own cookies. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} sources SEC(".maps");

SEC("sk_skb/stream_verdict")
int forward(struct __sk_buff *skb)
{
	__u64 cookie;

	/* A bare FIN. The relay learns of it by other means, and to redirect it, or to
	 * pass it while the socket has something to send, breaks the socket's queue. */
	if (skb->len == 0)
		return SK_DROP;
	cookie = bpf_get_socket_cookie(skb);
	return bpf_sk_redirect_hash(skb, &peers, &cookie, 0);
}
