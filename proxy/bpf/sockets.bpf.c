/* SPDX-License-Identifier: Apache-2.0
 *
 * Services at the socket: the address of a Service is replaced by that of an endpoint when a socket connects or sends, so
 * that no packet ever carries the Service's address and none has to be translated.
 *
 *   connect, sendmsg      Service -> endpoint (an error at once where there is none)
 *   recvmsg, getpeername  endpoint -> Service, so that the program sees the address it asked for
 *
 * Every address is IPv6 here; IPv4 is written as ::ffff:a.b.c.d, which is also how an IPv6 socket asks for it.
 *
 * One Service port at one address (a frontend) has a record that names a set of slots by (id, generation) and their number.
 * The proxy fills the slots of a new generation first and then replaces the record, which the kernel does in one step: a
 * connection sees the old endpoints or the new ones. It removes the old slots last; a program that still held the old record
 * and finds its slot gone reads the record again. src/ebpf/layout.rs has the same layouts; whoever
 * changes one of them raises LAYOUT there. */
#include "bpf.h"

/* An address, with the transport where it is a frontend's or an endpoint's. `port` is in network byte order. */
struct address {
    __u32 ip[4];
    __u16 port;
    __u16 protocol;
};

/* Frontends of one Service port that have the same endpoints share `id`, and with it slots and clients' affinity. */
struct frontend {
    __u32 id;
    __u32 generation;
    __u32 endpoints;
    /* 0 without session affinity. */
    __u32 affinity_seconds;
};

struct slot {
    __u32 id;
    __u32 generation;
    __u32 index;
};

/* Endpoint `endpoint` is one of frontend `id`: what a remembered choice is checked against. */
struct member {
    __u32 id;
    struct address endpoint;
};

/* Who a client is: the address its socket is bound to, or where it is bound to none, the network namespace. */
struct client {
    __u32 id;
    __u32 by_namespace;
    __u64 identity[2];
};

struct choice {
    struct address endpoint;
    __u32 zero;
    __u64 used_nanoseconds;
};

/* What a socket's program asked for, and what it got. */
struct flow {
    struct address service;
    struct address endpoint;
};

/* Unconnected UDP sockets speak with several Services at a time; of more than this many, the oldest flow is forgotten. */
#define FLOWS 8

struct flows {
    __u32 next;
    struct flow flow[FLOWS];
};

struct {
    MAP_INT(type, BPF_MAP_TYPE_HASH);
    MAP_INT(map_flags, BPF_F_NO_PREALLOC);
    MAP_INT(max_entries, 131072);
    MAP_TYPE(key, struct address);
    MAP_TYPE(value, struct frontend);
} frontends SEC(".maps");

struct {
    MAP_INT(type, BPF_MAP_TYPE_HASH);
    MAP_INT(map_flags, BPF_F_NO_PREALLOC);
    MAP_INT(max_entries, 524288);
    MAP_TYPE(key, struct slot);
    MAP_TYPE(value, struct address);
} slots SEC(".maps");

struct {
    MAP_INT(type, BPF_MAP_TYPE_HASH);
    MAP_INT(map_flags, BPF_F_NO_PREALLOC);
    MAP_INT(max_entries, 524288);
    MAP_TYPE(key, struct member);
    MAP_TYPE(value, __u32);
} members SEC(".maps");

struct {
    MAP_INT(type, BPF_MAP_TYPE_LRU_HASH);
    MAP_INT(max_entries, 32768);
    MAP_TYPE(key, struct client);
    MAP_TYPE(value, struct choice);
} affinity SEC(".maps");

/* The peer of a connected socket. Lives and ends with the socket, as the next one does. */
struct {
    MAP_INT(type, BPF_MAP_TYPE_SK_STORAGE);
    MAP_INT(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, int);
    MAP_TYPE(value, struct flow);
} peers SEC(".maps");

/* The peers of an unconnected UDP socket. */
struct {
    MAP_INT(type, BPF_MAP_TYPE_SK_STORAGE);
    MAP_INT(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, int);
    MAP_TYPE(value, struct flows);
} datagrams SEC(".maps");

/* What a cgroup program answers: the call goes on, or fails. */
enum verdict {
    REFUSE = 0,
    PROCEED = 1,
};

/* How often a record is read again because its slot was gone. Each time the proxy must have replaced it meanwhile. */
#define ATTEMPTS 4

#define MAPPED_PREFIX __builtin_bswap32(0x0000ffff)

INLINE int same(const struct address *left, const struct address *right)
{
    return left->ip[3] == right->ip[3] && left->port == right->port && left->ip[2] == right->ip[2] &&
           left->ip[1] == right->ip[1] && left->ip[0] == right->ip[0] && left->protocol == right->protocol;
}

INLINE __u16 transport(const struct bpf_sock_addr *context)
{
    /* Multipath TCP is TCP to whom it connects to. */
    return context->protocol == IPPROTO_MPTCP ? IPPROTO_TCP : context->protocol;
}

INLINE struct address address4(const struct bpf_sock_addr *context)
{
    struct address address = {
        .ip = {0, 0, MAPPED_PREFIX, context->user_ip4},
        .port = context->user_port,
        .protocol = transport(context),
    };
    return address;
}

INLINE struct address address6(const struct bpf_sock_addr *context)
{
    struct address address = {
        .ip = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]},
        .port = context->user_port,
        .protocol = transport(context),
    };
    return address;
}

INLINE void set_address4(struct bpf_sock_addr *context, const struct address *address)
{
    context->user_ip4 = address->ip[3];
    context->user_port = address->port;
}

INLINE void set_address6(struct bpf_sock_addr *context, const struct address *address)
{
    context->user_ip6[0] = address->ip[0];
    context->user_ip6[1] = address->ip[1];
    context->user_ip6[2] = address->ip[2];
    context->user_ip6[3] = address->ip[3];
    context->user_port = address->port;
}

INLINE struct client client(struct bpf_sock_addr *context, __u32 id)
{
    struct client client = {.id = id};
    const struct bpf_sock *socket = context->sk;
    __u32 ip[4] = {0, 0, MAPPED_PREFIX, 0};

    if (socket->family == AF_INET) {
        ip[3] = socket->src_ip4;
        /* Keeps the compiler from reading both branches' fields through one computed pointer, which the kernel refuses. */
        __asm__ volatile("" : "+r"(ip[3]));
    } else {
        ip[0] = socket->src_ip6[0];
        ip[1] = socket->src_ip6[1];
        ip[2] = socket->src_ip6[2];
        ip[3] = socket->src_ip6[3];
    }
    if (ip[3]) {
        client.identity[0] = (__u64)ip[0] << 32 | ip[1];
        client.identity[1] = (__u64)ip[2] << 32 | ip[3];
    } else {
        client.by_namespace = 1;
        client.identity[0] = bpf_get_netns_cookie(context);
    }
    return client;
}

INLINE int is_member(__u32 id, const struct address *endpoint)
{
    struct member member = {.id = id, .endpoint = *endpoint};

    return bpf_map_lookup_elem(&members, &member) != 0;
}

/* Any endpoint of the frontend; 0 when the record was replaced meanwhile. */
INLINE const struct address *any_endpoint(const struct frontend *frontend)
{
    struct slot slot = {
        .id = frontend->id,
        .generation = frontend->generation,
        .index = bpf_get_prandom_u32() % frontend->endpoints,
    };

    return bpf_map_lookup_elem(&slots, &slot);
}

/* The endpoint that this client had last, or any; 0 when the record was replaced meanwhile. */
INLINE int endpoint_of_client(struct bpf_sock_addr *context, const struct frontend *frontend, struct address *endpoint)
{
    const struct address *found;

    if (frontend->affinity_seconds) {
        struct client key = client(context, frontend->id);
        struct choice *last = bpf_map_lookup_elem(&affinity, &key);
        struct choice choice = {.used_nanoseconds = bpf_ktime_get_ns()};

        if (last && choice.used_nanoseconds - last->used_nanoseconds < frontend->affinity_seconds * 1000000000ull) {
            *endpoint = last->endpoint;
            if (is_member(frontend->id, endpoint)) {
                last->used_nanoseconds = choice.used_nanoseconds;
                return 1;
            }
        }
        found = any_endpoint(frontend);
        if (!found)
            return 0;
        *endpoint = *found;
        choice.endpoint = *endpoint;
        bpf_map_update_elem(&affinity, &key, &choice, BPF_ANY);
        return 1;
    }
    found = any_endpoint(frontend);
    if (!found)
        return 0;
    *endpoint = *found;
    return 1;
}

/* connect: the socket has one peer from now on. */
INLINE enum verdict connect(struct bpf_sock_addr *context, struct address *address)
{
    struct flow flow = {.service = *address};
    struct flow *peer;

    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        const struct frontend *frontend = bpf_map_lookup_elem(&frontends, &flow.service);

        if (!frontend)
            break;
        if (!frontend->endpoints) {
            bpf_set_retval(-ECONNREFUSED);
            return REFUSE;
        }
        if (!endpoint_of_client(context, frontend, &flow.endpoint))
            continue;
        peer = bpf_sk_storage_get(&peers, context->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        if (peer)
            *peer = flow;
        *address = flow.endpoint;
        return PROCEED;
    }
    /* The socket may have been connected to a Service before. */
    peer = bpf_sk_storage_get(&peers, context->sk, 0, 0);
    if (peer)
        *peer = (struct flow){};
    return PROCEED;
}

/* sendmsg with an address: a socket stays with its endpoint as long as that is one, as conntrack would have it. */
INLINE enum verdict sendmsg(struct bpf_sock_addr *context, struct address *address)
{
    struct flow flow = {.service = *address};

    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        const struct frontend *frontend = bpf_map_lookup_elem(&frontends, &flow.service);
        struct flows *known;

        if (!frontend)
            return PROCEED;
        if (!frontend->endpoints) {
            bpf_set_retval(-ECONNREFUSED);
            return REFUSE;
        }
        known = bpf_sk_storage_get(&datagrams, context->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        if (known) {
#pragma clang loop unroll(disable)
            for (int index = 0; index < FLOWS; index++) {
                if (!same(&known->flow[index].service, &flow.service))
                    continue;
                flow.endpoint = known->flow[index].endpoint;
                if (!is_member(frontend->id, &flow.endpoint))
                    continue;
                *address = flow.endpoint;
                return PROCEED;
            }
        }
        if (!endpoint_of_client(context, frontend, &flow.endpoint))
            continue;
        if (known)
            known->flow[__sync_fetch_and_add(&known->next, 1) % FLOWS] = flow;
        *address = flow.endpoint;
        return PROCEED;
    }
    return PROCEED;
}

/* Whether `address` is that of an endpoint which this socket knows by a Service's; if so, that one is put in its place. */
INLINE int restore_peer(struct bpf_sock_addr *context, struct address *address)
{
    struct flow *peer = bpf_sk_storage_get(&peers, context->sk, 0, 0);

    if (!peer || !same(&peer->endpoint, address))
        return 0;
    *address = peer->service;
    return 1;
}

INLINE int restore_sender(struct bpf_sock_addr *context, struct address *address)
{
    struct flows *known = bpf_sk_storage_get(&datagrams, context->sk, 0, 0);

    if (known) {
#pragma clang loop unroll(disable)
        for (int index = 0; index < FLOWS; index++) {
            if (same(&known->flow[index].endpoint, address)) {
                *address = known->flow[index].service;
                return 1;
            }
        }
    }
    return restore_peer(context, address);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *context)
{
    struct address address = address4(context);

    if (connect(context, &address) == REFUSE)
        return REFUSE;
    set_address4(context, &address);
    return PROCEED;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *context)
{
    struct address address = address6(context);

    if (connect(context, &address) == REFUSE)
        return REFUSE;
    set_address6(context, &address);
    return PROCEED;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *context)
{
    struct address address = address4(context);

    if (sendmsg(context, &address) == REFUSE)
        return REFUSE;
    set_address4(context, &address);
    return PROCEED;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *context)
{
    struct address address = address6(context);

    if (sendmsg(context, &address) == REFUSE)
        return REFUSE;
    set_address6(context, &address);
    return PROCEED;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *context)
{
    struct address address = address4(context);

    if (restore_sender(context, &address))
        set_address4(context, &address);
    return PROCEED;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *context)
{
    struct address address = address6(context);

    if (restore_sender(context, &address))
        set_address6(context, &address);
    return PROCEED;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *context)
{
    struct address address = address4(context);

    if (restore_peer(context, &address))
        set_address4(context, &address);
    return PROCEED;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *context)
{
    struct address address = address6(context);

    if (restore_peer(context, &address))
        set_address6(context, &address);
    return PROCEED;
}

char sockets_license[] SEC("license") = "Apache-2.0";
