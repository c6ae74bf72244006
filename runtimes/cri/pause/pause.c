/* The first process of a pod sandbox: holds the pod's namespaces, reaps what others leave, ends when it is asked to.
 *
 * No C library, so that the image of the sandbox is this file alone. `make pause` builds it for both architectures. */

#if defined(__x86_64__)
#define WAIT4 61
#define RT_SIGPROCMASK 14
#define RT_SIGTIMEDWAIT 128
#define EXIT_GROUP 231
static long call(long number, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
#define WAIT4 260
#define RT_SIGPROCMASK 135
#define RT_SIGTIMEDWAIT 137
#define EXIT_GROUP 94
static long call(long number, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#else
#error "pause has no system calls for this architecture"
#endif

enum { BLOCK = 0, NO_HANG = 1, INTERRUPT = 2, TERMINATE = 15, CHILD = 17 };

void _start(void) {
    unsigned long signals = 1ul << (INTERRUPT - 1) | 1ul << (TERMINATE - 1) | 1ul << (CHILD - 1);
    call(RT_SIGPROCMASK, BLOCK, (long)&signals, 0, sizeof signals);
    for (;;) {
        long signal = call(RT_SIGTIMEDWAIT, (long)&signals, 0, 0, sizeof signals);
        if (signal == INTERRUPT || signal == TERMINATE) {
            call(EXIT_GROUP, 0, 0, 0, 0);
        }
        while (call(WAIT4, -1, 0, NO_HANG, 0) > 0) {
        }
    }
}
