// One program with many behaviours, chosen by its first argument.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static int print_file(const char *path) {
    char text[4096];
    FILE *file = fopen(path, "r");
    if (!file) {
        printf("open %s: %s\n", path, strerror(errno));
        return 1;
    }
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = 0;
    printf("%s: %s\n", path, text);
    return fclose(file);
}

static int write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file) {
        printf("open %s: %s\n", path, strerror(errno));
        return 1;
    }
    fputs(text, file);
    return fclose(file);
}

// Seen by the compiler as used, so that it does not do away with the memory.
static char *volatile kept;

static void grow(size_t megabytes) {
    for (size_t i = 0; i < megabytes; i++) {
        char *block = malloc(1 << 20);
        if (!block) abort();
        memset(block, 1, 1 << 20);
        kept = block;
    }
    printf("grew %zu MiB\n", megabytes);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "prints")) {
        puts("hello");
        fputs("oops\n", stderr);
    } else if (!strcmp(what, "exits")) {
        return atoi(argv[2]);
    } else if (!strcmp(what, "sleeps")) {
        for (;;) sleep(3600);
    } else if (!strcmp(what, "spins")) {
        for (volatile unsigned i = 0;; i++) {}
    } else if (!strcmp(what, "traps")) {
        __builtin_trap();
    } else if (!strcmp(what, "recurses")) {
        volatile char frame[1024];
        frame[0] = 1;
        return main(argc, argv) + frame[0];
    } else if (!strcmp(what, "grows")) {
        grow(strtoul(argv[2], 0, 10));
    } else if (!strcmp(what, "grows-and-sleeps")) {
        grow(strtoul(argv[2], 0, 10));
        fflush(stdout);
        for (;;) sleep(3600);
    } else if (!strcmp(what, "shows")) {
        for (int i = 0; i < argc; i++) printf("arg %d: %s\n", i, argv[i]);
        for (char **env = environ; *env; env++) printf("env: %s\n", *env);
        char c;
        printf("stdin: %zd\n", read(0, &c, 1));
    } else if (!strcmp(what, "reads")) {
        return print_file(argv[2]);
    } else if (!strcmp(what, "writes")) {
        return write_file(argv[2], argv[3]);
    } else if (!strcmp(what, "floods")) {
        char line[30000];
        memset(line, 'x', sizeof line);
        line[sizeof line - 1] = '\n';
        for (int i = 0; i < 3; i++) fwrite(line, 1, sizeof line, stdout);
    } else if (!strcmp(what, "logs")) {
        // So many lines of 1000 bytes, numbered; then a few more, slowly.
        long lines = atol(argv[2]);
        for (long i = 0; i < lines; i++) printf("%06ld %0993d\n", i, 0);
        fflush(stdout);
        for (long i = lines;; i++) {
            usleep(200000);
            printf("%06ld\n", i);
            fflush(stdout);
        }
    } else {
        puts("what?");
        return 2;
    }
    return 0;
}
