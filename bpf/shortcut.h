/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the kernel programs and the Go code that loads them both know. */
#ifndef ONEPORT_SHORTCUT_H
#define ONEPORT_SHORTCUT_H

/* How a socket's messages may go the short way. */
enum form {
	INGRESS = 1, /* into the receive side of the target, past its TCP */
	EGRESS = 2,  /* into the send side of the target, past two sockets and the relay between them */
};

/* Between whom. The programs do not ask; it is kept here for those who look. */
enum kind {
	TRIAL = 0,   /* nobody: the loader tries whether the kernel behaves */
	DIRECT = 1,  /* the two ends of one connection */
	THROUGH = 2, /* a client's and a node's socket, with a relay between them */
	OUTWARD = 3, /* a node's socket, and the daemon's two; the client is elsewhere */
};

/* A socket's short way. Written once, by the loader; lives and ends with the
 * socket. The program only reads it. */
struct route {
	__u64 target_cookie; /* SO_COOKIE of the target: its key in `targets` */
	__u64 target;        /* kernel address of the target; see target_of() */
	__u64 begin;         /* not before this CLOCK_MONOTONIC time, in ns */
	__u32 form;          /* enum form */
	__u32 delta;         /* what the sequence numbers of the long way's two ends differ by */
	__u32 limit;         /* INGRESS: bytes that may wait at the target */
	__u32 kind;          /* enum kind */
};

/* What became of a socket's messages. Written by the program alone, which
 * runs with the socket locked: no atomics. All count messages but for those
 * that say bytes. */
struct counts {
	__u64 short_messages;
	__u64 short_bytes;
	__u64 long_messages; /* the sum of the reasons below */
	__u64 long_bytes;
	__u64 settling; /* the pair has just been made */
	__u64 closing;  /* one of the two no longer sends, or no longer receives */
	__u64 busy;     /* older bytes are still on the long way */
	__u64 full;     /* no room at the target */
	__u64 blocks;   /* the target's reader may block in the kernel */
	__u64 pressure; /* the kernel is short of memory for TCP */
	__u64 gone;     /* the target has closed, or was taken out of `targets` */
};

/* One socket, as the iterator describes it. Ports are in the host's byte order;
 * an IPv4 address fills the first four bytes. */
struct endpoint {
	__u64 cookie;
	__u64 address; /* in the kernel; for struct route */
	__u64 inode;   /* of its network namespace */
	__u32 write_seq;  /* of the next byte that is written to it */
	__u32 snd_una;    /* of the first byte that the other end has not acknowledged */
	__u32 rcv_nxt;    /* of the next byte that arrives */
	__u32 copied_seq; /* of the next byte that is read from it */
	__u32 rmem;       /* bytes charged to its receive side */
	__u32 queued;     /* 1 if bytes that came the short way are unread */
	__u32 family;     /* AF_INET or AF_INET6 */
	__u16 local_port, remote_port;
	__u8 local[16], remote[16];
	__u8 state; /* TCP_ESTABLISHED and so on */
	__u8 unused[7];
	struct route route;
	struct counts counts;
};

#endif
