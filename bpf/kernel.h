/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The members of the kernel's types that the programs look at. Offsets are of
 * no account here: the loader replaces them by those of the running kernel
 * (CO-RE), which is why this takes the place of a generated vmlinux.h. */
#ifndef ONEPORT_KERNEL_H
#define ONEPORT_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef __u16 __sum16;
typedef _Bool bool;
enum { false, true };

enum bpf_map_type {
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_SOCKHASH = 18,
	BPF_MAP_TYPE_SK_STORAGE = 24,
};

enum { BPF_F_NO_PREALLOC = 1 };
enum { BPF_F_INGRESS = 1 };
enum sk_action { SK_DROP, SK_PASS };

/* User API: laid out for good, so without relocation. */
struct bpf_sock;
struct sk_msg_md {
	union { void *data; __u64 : 64; };
	union { void *data_end; __u64 : 64; };
	__u32 family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port;
	__u32 size; /* bytes of the message */
	union { struct bpf_sock *sk; __u64 : 64; };
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { int counter; } atomic_t;
typedef struct { __s64 counter; } atomic64_t;
typedef struct { long counter; } atomic_long_t;

struct list_head { struct list_head *next; };
struct in6_addr { union { __u8 u6_addr8[16]; } in6_u; };
struct ns_common { unsigned int inum; };
struct netns_ipv4 { int sysctl_tcp_rmem[3]; };
struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
};
typedef struct { struct net *net; } possible_net_t;

struct file { unsigned int f_flags; };
struct socket { struct file *file; };

struct page_counter {
	atomic_long_t usage;
	unsigned long max;
	struct page_counter *parent;
};
struct mem_cgroup { struct page_counter memory; };

struct proto {
	atomic_long_t *memory_allocated; /* pages */
	unsigned long *memory_pressure;
	long *sysctl_mem; /* three thresholds, in pages */
};

struct sock_common {
	union { struct { __be32 skc_daddr; __be32 skc_rcv_saddr; }; };
	union { struct { __be16 skc_dport; __u16 skc_num; }; };
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	struct proto *skc_prot;
};

struct sock {
	struct sock_common __sk_common;
	struct { atomic_t rmem_alloc; } sk_backlog;
	int sk_forward_alloc;
	int sk_rcvbuf, sk_sndbuf, sk_wmem_queued, sk_rcvlowat, sk_err;
	__u8 sk_shutdown;
	__u8 sk_userlocks : 4;
	struct mem_cgroup *sk_memcg;
	struct socket *sk_socket;
	void *sk_user_data;
};

struct inet_sock { struct sock sk; };
struct inet_connection_sock { struct inet_sock icsk_inet; };
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 write_seq, snd_una, rcv_nxt, copied_seq, rcv_wnd;
	__u8 scaling_ratio; /* from 6.6 on */
};

struct sk_psock { struct list_head ingress_msg; };

struct seq_file;
struct bpf_iter_meta { struct seq_file *seq; };
struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
};

#pragma clang attribute pop

#endif
