//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The shortcut: a message that a paired socket sends goes straight to the
 * other end of its way instead of through TCP, the loopback device and, if
 * there is one, the relay.
 *
 * One rule makes it right: the long way is always there; the short way is
 * taken only when the long way is empty and the target has room. So the order
 * of the bytes holds, the kernel's memory is bounded, a full target pushes
 * back by TCP's own means, and FIN and RST, which always travel the long way,
 * arrive behind the data. Every message that fails one of the conditions
 * below is left to TCP (SK_PASS without a redirect).
 *
 * Nothing here waits for the daemon, and all of it ends with the sockets.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "shortcut.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Puts types into the object's BTF, and so into Go, that no map holds. */
const struct endpoint *described __attribute__((unused));
const enum form *forms __attribute__((unused));
const enum kind *kinds __attribute__((unused));

#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2
#define SOCK_RCVBUF_LOCK 2
#define TCP_ESTABLISHED 1
#define TCP_CLOSE_WAIT 8
#define AF_INET 2
#define O_NONBLOCK 04000
#define PAGE 4096 /* the smallest there is; only margins are made of it */

/* Whether the kernel has bpf_rdonly_cast (6.2), by which another socket is
 * read with plain loads. Set by the loader; else every read is a call. */
const volatile bool can_cast = false;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/* Sockets whose messages the program sees. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} senders SEC(".maps");

/* Sockets that may be given messages. To delete one here is how a short way
 * is shut: no socket has to be at hand for it, only its cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} targets SEC(".maps");

/* Targets that are no senders. The kernel forgets what is queued at a socket
 * with its last entry in any map, and fails a redirect that is underway: so
 * the entry in `targets` must never be the only one. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} keepers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct route);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct counts);
} counters SEC(".maps");

/* What became of all messages ever, of closed sockets as well, by enum kind (an
 * array's key must be a plain number to have a type). For people and their
 * metrics: bpftool can walk it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTWARD + 1);
	__type(key, __u32);
	__type(value, struct counts);
} totals SEC(".maps");

/* Sockets that the loader wants described: the few that it is about to pair.
 * The iterator walks this map and not the host's sockets. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} stage SEC(".maps");

/* Reads a member of a socket that is not the program's own, anew each time:
 * its owner changes it meanwhile, on another CPU. */
#define SEE(into, member)                                                   \
	do {                                                                \
		if (can_cast)                                               \
			(into) = *(volatile typeof(member) *)&(member);     \
		else                                                        \
			bpf_core_read(&(into), sizeof(into), &(member));    \
	} while (0)

/* Reads what no cast makes readable: a plain number behind a pointer. */
#define PEEK(into, pointer) bpf_probe_read_kernel(&(into), sizeof(into), pointer)

/* The target of a route. It may have been freed, and be another socket by now.
 * What is read from it then is nonsense, and does no harm: it only counts if
 * the redirect finds the target in `targets` afterwards, by a cookie that is
 * never given twice. A socket found there was there during the reads. */
static __always_inline struct tcp_sock *target_of(const struct route *route)
{
	if (can_cast)
		return bpf_rdonly_cast((void *)route->target, bpf_core_type_id_kernel(struct tcp_sock));
	return (struct tcp_sock *)route->target;
}

/* Whether the pair is too young. A reader that was just between two code paths
 * of the kernel when its socket came into the map must have gone on. */
static __always_inline bool settles(const struct route *route)
{
	return bpf_ktime_get_ns() < route->begin;
}

/* Whether S has shut down sending. The kernel's sockmap code would not look. */
static __always_inline bool stopped_sending(const struct sock *s)
{
	return s->sk_shutdown & SEND_SHUTDOWN;
}

/* Whether R has shut down receiving. */
static __always_inline bool stopped_receiving(const struct sock *r)
{
	__u8 shutdown = RCV_SHUTDOWN;

	SEE(shutdown, r->sk_shutdown);
	return shutdown & RCV_SHUTDOWN;
}

/* Whether C cannot be sent on: not connected, shut down, or broken. */
static __always_inline bool stopped_transmitting(const struct sock *c)
{
	__u8 shutdown = SEND_SHUTDOWN, state = 0;
	int err = 1;

	SEE(state, c->__sk_common.skc_state);
	SEE(shutdown, c->sk_shutdown);
	SEE(err, c->sk_err);
	return (state != TCP_ESTABLISHED && state != TCP_CLOSE_WAIT) || (shutdown & SEND_SHUTDOWN) || err;
}

/* Whether every byte that S sent the long way has been read from R. What went
 * the short way is in neither number. Through a relay the two connections
 * count from different beginnings, delta apart. */
static __always_inline bool ahead_unread(const struct route *route, const struct tcp_sock *s, const struct tcp_sock *r)
{
	__u32 copied = 0;

	SEE(copied, r->copied_seq);
	return copied != s->write_seq + route->delta;
}

/* Whether every byte that S sent the long way has been written to C by the
 * relay. C's number holds the short bytes as well, S's does not. */
static __always_inline bool ahead_unwritten(const struct route *route, const struct counts *counts,
					    const struct tcp_sock *s, const struct tcp_sock *c)
{
	__u32 written = 0;

	SEE(written, c->write_seq);
	return written - s->write_seq != route->delta + (__u32)counts->short_bytes;
}

/* How TCP's memory, that of all sockets together, stands with n bytes more. */
enum supply {
	AMPLE, /* below the low threshold: everything is granted */
	SCANT, /* above it: buffers no longer grow */
	SHORT, /* under pressure, or about to be: the kernel could refuse */
};

static __always_inline enum supply supply_of(const struct sock *r, __u32 n)
{
	struct proto *proto = 0;
	long *allocated = 0, *thresholds = 0;
	unsigned long *pressure = 0;
	long pages = 0, threshold[2] = {};
	unsigned long pressed = 1;

	SEE(proto, r->__sk_common.skc_prot);
	if (!proto)
		return SHORT;
	bpf_core_read(&allocated, sizeof(allocated), &proto->memory_allocated);
	bpf_core_read(&thresholds, sizeof(thresholds), &proto->sysctl_mem);
	PEEK(pages, allocated);
	PEEK(threshold, thresholds);
	pages += n / PAGE + 1;
	if (pages <= threshold[0])
		return AMPLE;
	bpf_core_read(&pressure, sizeof(pressure), &proto->memory_pressure);
	PEEK(pressed, pressure);
	return pressed || pages > threshold[1] ? SHORT : SCANT;
}

/* What TCP charges a receive buffer at most for so many bytes of data: the
 * inverse of how it makes a window of a buffer. Before 6.6 that was by the sysctl
 * tcp_adv_win_scale, 1 unless somebody has changed it: the half. */
static __always_inline __u32 charge_of(const struct tcp_sock *tcp, __u32 window)
{
	__u8 ratio = 0; /* of 256 bytes of the buffer */

	if (!bpf_core_field_exists(tcp->scaling_ratio))
		return 2 * window;
	SEE(ratio, tcp->scaling_ratio);
	return ratio ? ((__u64)window << 8) / ratio : ~0U;
}

/* Less than TCP charges for any segment, and so than what the last one of a full
 * window may exceed a buffer by. */
#define ALWAYS_HELD 512

/* How many bytes may wait at R so that what its TCP has offered a window for has
 * its place beside them. Where it has not, TCP drops it, and the sender waits for
 * a retransmission. A buffer that TCP may enlarge, up to tcp_rmem, has nearly
 * always room for more than a window, above the low threshold of its memory some.
 * One that its owner has set has none beside a full window. */
static __always_inline __u32 buffer_holds(const struct tcp_sock *tcp, const struct sock *r, enum supply supply)
{
	__u32 window = 0, promised, held;
	int buffer = 0, largest = 0;
	struct net *net = 0;

	SEE(buffer, r->sk_rcvbuf);
	SEE(window, tcp->rcv_wnd);
	if (BPF_CORE_READ_BITFIELD_PROBED(r, sk_userlocks) & SOCK_RCVBUF_LOCK) {
		held = ALWAYS_HELD;
		promised = charge_of(tcp, window);
	} else {
		if (supply == AMPLE) {
			SEE(net, r->__sk_common.skc_net.net);
			bpf_core_read(&largest, sizeof(largest), &net->ipv4.sysctl_tcp_rmem[2]);
			if (largest > buffer)
				buffer = largest;
		}
		held = (__u32)buffer / 4;
		promised = window;
	}
	if ((__u32)buffer > promised && (__u32)buffer - promised > held)
		held = (__u32)buffer - promised;
	return held;
}

/* Whether n more bytes would be too many for R's reader. One message is taken
 * by an empty R whatever the limit, or large ones would never go the short way. */
static __always_inline bool reader_full(const struct route *route, const struct tcp_sock *tcp, const struct sock *r,
					enum supply supply, __u32 n)
{
	__u64 waiting;
	int charged = 0;

	SEE(charged, r->sk_backlog.rmem_alloc.counter);
	waiting = charged > 0 ? charged : 0;
	if (waiting && waiting + n > route->limit)
		return true;
	return waiting + n > buffer_holds(tcp, r, supply);
}

/* Whether C's send buffer has no room for n bytes and what the kernel adds to
 * them. The sender would sleep in the kernel, non-blocking or not. */
static __always_inline bool transmitter_full(const struct sock *c, __u32 n)
{
	int buffer = 0, queued = 0, room;

	SEE(buffer, c->sk_sndbuf);
	SEE(queued, c->sk_wmem_queued);
	room = buffer - queued - PAGE;
	room -= room >> 4;
	return room < 0 || (__u32)room < n;
}

/* Whether R's reader may sleep inside the kernel. A blocking read is given a
 * spurious EAGAIN there, MSG_WAITALL and SO_RCVLOWAT do not see short bytes. */
static __always_inline bool reader_blocks(const struct sock *r)
{
	struct socket *socket = 0;
	struct file *file = 0;
	unsigned int flags = 0;
	int low = 0;

	SEE(socket, r->sk_socket);
	if (!socket)
		return true;
	SEE(file, socket->file);
	if (!file)
		return true;
	SEE(flags, file->f_flags);
	SEE(low, r->sk_rcvlowat);
	return !(flags & O_NONBLOCK) || low > 1;
}

/* Whether the control group of R, or one above it, has no room for n bytes. */
static __always_inline bool group_short(const struct sock *r, __u32 n)
{
	struct mem_cgroup *group = 0;
	struct page_counter *counter;

	if (!bpf_core_field_exists(r->sk_memcg))
		return false;
	bpf_core_read(&group, sizeof(group), &r->sk_memcg);
	/* Newer kernels keep flags in the lowest bits. */
	group = (struct mem_cgroup *)((unsigned long)group & ~7UL);
	if (!group)
		return false;
	counter = &group->memory;
	for (int depth = 0; depth < 8 && counter; depth++) {
		struct page_counter *parent = 0;
		unsigned long max = 0;
		long usage = 0;

		bpf_core_read(&usage, sizeof(usage), &counter->usage.counter);
		bpf_core_read(&max, sizeof(max), &counter->max);
		bpf_core_read(&parent, sizeof(parent), &counter->parent);
		if ((unsigned long)usage + n / PAGE + 64 > max)
			return true;
		counter = parent;
	}
	return false;
}

/* Whether the kernel could refuse R the memory for n bytes. It fails the send
 * with ENOMEM then, where TCP waits. */
static __always_inline bool memory_short(const struct sock *r, enum supply supply, __u32 n)
{
	int forward = 0;

	if (supply == SHORT)
		return true;
	/* What R has been granted already asks nobody. */
	SEE(forward, r->sk_forward_alloc);
	return forward < (int)n && group_short(r, n);
}

/* Why a message goes the long way; each has its counter in struct counts. */
enum reason { NONE, SETTLING, CLOSING, BUSY, FULL, BLOCKS, PRESSURE, GONE };

/* Every condition but the last, which is that the redirect finds the target. */
static __always_inline enum reason obstacle(const struct route *route, const struct counts *counts, const struct tcp_sock *s, __u32 n)
{
	enum supply supply;
	struct tcp_sock *tcp;
	struct sock *r;

	if (stopped_sending(&s->inet_conn.icsk_inet.sk))
		return CLOSING;
	if (settles(route))
		return SETTLING;
	tcp = target_of(route);
	r = &tcp->inet_conn.icsk_inet.sk;
	supply = supply_of(r, n);
	if (route->form == EGRESS) {
		if (stopped_transmitting(r))
			return CLOSING;
		if (ahead_unwritten(route, counts, s, tcp))
			return BUSY;
		if (transmitter_full(r, n))
			return FULL;
	} else {
		if (stopped_receiving(r))
			return CLOSING;
		if (ahead_unread(route, s, tcp))
			return BUSY;
		if (reader_full(route, tcp, r, supply, n))
			return FULL;
		if (reader_blocks(r))
			return BLOCKS;
	}
	if (memory_short(r, supply, n))
		return PRESSURE;
	return NONE;
}

/* The counter of a reason. */
static __always_inline __u64 *counter_of(struct counts *counts, enum reason reason)
{
	switch (reason) {
	case SETTLING: return &counts->settling;
	case CLOSING:  return &counts->closing;
	case BUSY:     return &counts->busy;
	case FULL:     return &counts->full;
	case BLOCKS:   return &counts->blocks;
	case PRESSURE: return &counts->pressure;
	default:       return &counts->gone;
	}
}

/* Counts a message of n bytes that goes short, or long for a reason. */
static __always_inline void count(struct counts *counts, enum reason reason, __u32 n)
{
	if (reason == NONE) {
		counts->short_messages++;
		counts->short_bytes += n;
		return;
	}
	++*counter_of(counts, reason);
	counts->long_messages++;
	counts->long_bytes += n;
}

/* The same in the totals. Another program may run on this CPU between any two
 * instructions, so these are atomic. */
static __always_inline void count_total(__u32 kind, enum reason reason, __u32 n)
{
	struct counts *all = bpf_map_lookup_elem(&totals, &kind);

	if (!all)
		return;
	if (reason == NONE) {
		__sync_fetch_and_add(&all->short_messages, 1);
		__sync_fetch_and_add(&all->short_bytes, n);
		return;
	}
	__sync_fetch_and_add(counter_of(all, reason), 1);
	__sync_fetch_and_add(&all->long_messages, 1);
	__sync_fetch_and_add(&all->long_bytes, n);
}

SEC("sk_msg")
int shortcut(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct counts *counts;
	struct route *route;
	struct tcp_sock *s;
	__u32 n = msg->size;
	enum reason reason;
	__u64 cookie;

	if (!sk)
		return SK_PASS;
	route = bpf_sk_storage_get(&routes, sk, 0, 0);
	counts = bpf_sk_storage_get(&counters, sk, 0, 0);
	s = bpf_skc_to_tcp_sock(sk);
	if (!route || !counts || !s)
		return SK_PASS;

	reason = obstacle(route, counts, s, n);
	if (reason == NONE) {
		cookie = route->target_cookie;
		if (bpf_msg_redirect_hash(msg, &targets, &cookie, route->form == EGRESS ? 0 : BPF_F_INGRESS) != SK_PASS)
			reason = GONE;
	}
	count(counts, reason, n);
	count_total(route->kind, reason, n);
	return SK_PASS;
}

/* Whether bytes that came the short way wait at a socket that is in a map. */
static __always_inline bool has_queued(const struct sock *sk)
{
	/* The lowest bits are flags. */
	struct sk_psock *psock = (struct sk_psock *)((unsigned long)sk->sk_user_data & ~7UL);
	struct list_head *first = 0;

	if (!psock)
		return false;
	bpf_core_read(&first, sizeof(first), &psock->ingress_msg.next);
	return first && first != &psock->ingress_msg;
}

/* Describes the sockets of one map: those on the stage, or all that have a
 * route. It takes no reference and no lock of a socket. */
SEC("iter/bpf_sk_storage_map")
int describe(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct endpoint e = {};
	struct counts *counts;
	struct route *route;
	struct tcp_sock *tcp;
	struct sock *sk = ctx->sk;

	if (!sk || !sk->sk_socket)
		return 0; /* closed by its owner; the rest is TCP's */
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	e.cookie = sk->__sk_common.skc_cookie.counter;
	e.address = (__u64)tcp;
	e.inode = sk->__sk_common.skc_net.net->ns.inum;
	e.write_seq = tcp->write_seq;
	e.snd_una = tcp->snd_una;
	e.rcv_nxt = tcp->rcv_nxt;
	e.copied_seq = tcp->copied_seq;
	e.rmem = sk->sk_backlog.rmem_alloc.counter;
	e.queued = has_queued(sk);
	e.family = sk->__sk_common.skc_family;
	e.local_port = sk->__sk_common.skc_num;
	e.remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	e.state = sk->__sk_common.skc_state;
	if (e.family == AF_INET) {
		__builtin_memcpy(e.local, &sk->__sk_common.skc_rcv_saddr, 4);
		__builtin_memcpy(e.remote, &sk->__sk_common.skc_daddr, 4);
	} else {
		bpf_core_read(e.local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(e.remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
	route = bpf_sk_storage_get(&routes, sk, 0, 0);
	if (route)
		e.route = *route;
	counts = bpf_sk_storage_get(&counters, sk, 0, 0);
	if (counts)
		e.counts = *counts;
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

/* enum kind in words. */
static const char kind_names[][8] = {"trial", "direct", "through", "outward"};

/* Says the same of all that have a route to people, a line each, when they
 * read the pinned iterator. bpftool cannot walk socket storage. */
SEC("iter/bpf_sk_storage_map")
int pairs(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct seq_file *out = ctx->meta->seq;
	struct sock *sk = ctx->sk;
	struct counts *counts;
	struct route *route;
	__u32 kind;

	if (!sk || !sk->sk_socket)
		return 0;
	route = bpf_sk_storage_get(&routes, sk, 0, 0);
	counts = bpf_sk_storage_get(&counters, sk, 0, 0);
	if (!route || !counts)
		return 0;
	kind = route->kind <= OUTWARD ? route->kind : 0;
	BPF_SEQ_PRINTF(out, "cookie=%llu target=%llu kind=%s netns=%u", sk->__sk_common.skc_cookie.counter,
		       route->target_cookie, kind_names[kind], sk->__sk_common.skc_net.net->ns.inum);
	if (sk->__sk_common.skc_family == AF_INET)
		BPF_SEQ_PRINTF(out, " local=%pI4:%u remote=%pI4:%u",
			       &sk->__sk_common.skc_rcv_saddr, sk->__sk_common.skc_num,
			       &sk->__sk_common.skc_daddr, bpf_ntohs(sk->__sk_common.skc_dport));
	else
		BPF_SEQ_PRINTF(out, " local=[%pI6]:%u remote=[%pI6]:%u",
			       &sk->__sk_common.skc_v6_rcv_saddr, sk->__sk_common.skc_num,
			       &sk->__sk_common.skc_v6_daddr, bpf_ntohs(sk->__sk_common.skc_dport));
	BPF_SEQ_PRINTF(out, " short_messages=%llu short_bytes=%llu long_messages=%llu long_bytes=%llu",
		       counts->short_messages, counts->short_bytes, counts->long_messages, counts->long_bytes);
	BPF_SEQ_PRINTF(out, " settling=%llu closing=%llu busy=%llu full=%llu blocks=%llu pressure=%llu gone=%llu\n",
		       counts->settling, counts->closing, counts->busy, counts->full,
		       counts->blocks, counts->pressure, counts->gone);
	return 0;
}
