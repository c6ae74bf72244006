/* The part of the kernel's BPF interface that our programs use, written down from its ABI (linux/bpf.h): numbers and layouts
 * that the kernel may never change. With it, compiling needs no kernel headers and gives the same object everywhere. */
#ifndef WHERRY_BPF_H
#define WHERRY_BPF_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* How a map is described in section `.maps`: the types of its members carry the values. */
#define MAP_INT(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

enum {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_LRU_HASH = 9,
    BPF_MAP_TYPE_SK_STORAGE = 24,
};

enum {
    BPF_F_NO_PREALLOC = 1,
};

enum {
    BPF_ANY = 0,
};

enum {
    BPF_SK_STORAGE_GET_F_CREATE = 1,
};

enum {
    AF_INET = 2,
    IPPROTO_TCP = 6,
    IPPROTO_UDP = 17,
    IPPROTO_MPTCP = 262,
    ECONNREFUSED = 111,
};

/* A socket. Everything that is an address or a port is in network byte order. */
struct bpf_sock {
    __u32 bound_dev_if;
    __u32 family;
    __u32 type;
    __u32 protocol;
    __u32 mark;
    __u32 priority;
    __u32 src_ip4;
    __u32 src_ip6[4];
    __u32 src_port;
    __u16 dst_port;
    __u16 : 16;
    __u32 dst_ip4;
    __u32 dst_ip6[4];
    __u32 state;
    __s32 rx_queue_mapping;
};

/* What a cgroup program on an address of a socket call is given. */
struct bpf_sock_addr {
    __u32 user_family;
    __u32 user_ip4;
    __u32 user_ip6[4];
    __u32 user_port;
    __u32 family;
    __u32 type;
    __u32 protocol;
    __u32 msg_src_ip4;
    __u32 msg_src_ip6[4];
    union {
        struct bpf_sock *sk;
        __u64 : 64;
    } __attribute__((aligned(8)));
};

/* Helpers, by number. */
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static __u64 (*const bpf_get_netns_cookie)(void *context) = (void *)122;
static int (*const bpf_set_retval)(int value) = (void *)187;

#endif
