// A guest with tools inside: which one is run is said by the name that it is called by, as in busybox.
//
// `kubectl exec POD -- cat /data/x` runs another instance of the container's guest with the arguments `cat /data/x`.
// `kubectl cp` asks for `tar` and `test`, so a guest that wants files copied has these two.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static int fail(const char *tool, const char *what) {
    fprintf(stderr, "%s: %s: %s\n", tool, what, strerror(errno));
    return 1;
}

static int copy(FILE *from, FILE *to) {
    char bytes[16384];
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, from)) > 0)
        if (fwrite(bytes, 1, n, to) != n || fflush(to)) return 1;
    return ferror(from);
}

static int cat(int argc, char **argv) {
    if (argc < 2) {
        // As it comes: somebody may be typing.
        char bytes[4096];
        ssize_t n;
        while ((n = read(0, bytes, sizeof bytes)) > 0)
            if (write(1, bytes, (size_t)n) != n) return 1;
        return n < 0;
    }
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "r");
        if (!file) return fail("cat", argv[i]);
        int failed = copy(file, stdout);
        fclose(file);
        if (failed) return fail("cat", argv[i]);
    }
    return 0;
}

static int ls(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return fail("ls", path);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.') puts(entry->d_name);
    return closedir(directory);
}

// A header of the ustar format: POSIX.1-1988.
struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6], version[2];
    char user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct header) == 512, "a block");

static unsigned checksum(const struct header *header) {
    const unsigned char *bytes = (const unsigned char *)header;
    unsigned sum = 0;
    for (size_t i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? ' ' : bytes[i];
    return sum;
}

static int pack(const char *path, FILE *to) {
    struct stat stat_of;
    if (stat(path, &stat_of)) return fail("tar", path);
    int is_directory = S_ISDIR(stat_of.st_mode);
    const char *name = path;
    while (*name == '/') name++;
    struct header header = {.type = is_directory ? '5' : '0', .magic = "ustar", .version = {'0', '0'}};
    if (snprintf(header.name, sizeof header.name, "%s%s", name, is_directory ? "/" : "") >= 100) {
        errno = ENAMETOOLONG;
        return fail("tar", path);
    }
    long long size = is_directory ? 0 : (long long)stat_of.st_size;
    snprintf(header.mode, 8, "%07o", is_directory ? 0755 : 0644);
    snprintf(header.uid, 8, "%07o", 0);
    snprintf(header.gid, 8, "%07o", 0);
    snprintf(header.size, 12, "%011llo", size);
    snprintf(header.mtime, 12, "%011llo", (long long)stat_of.st_mtime);
    snprintf(header.sum, 8, "%06o", checksum(&header));
    fwrite(&header, 1, sizeof header, to);
    if (!is_directory) {
        FILE *file = fopen(path, "r");
        if (!file) return fail("tar", path);
        int failed = copy(file, to);
        fclose(file);
        if (failed) return fail("tar", path);
        static const char zeros[512];
        fwrite(zeros, 1, (size_t)(-size & 511), to);
        return 0;
    }
    DIR *directory = opendir(path);
    if (!directory) return fail("tar", path);
    int failed = 0;
    for (struct dirent *entry; !failed && (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char below[512];
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        failed = pack(below, to);
    }
    closedir(directory);
    return failed;
}

static int leads_out(const char *name) {
    for (const char *at = name; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : 0)
        if (!strncmp(at, "..", 2) && (at[2] == '/' || !at[2])) return 1;
    return name[0] == '/';
}

// Archives need not name the directories above a file.
static void make_parents(char *path) {
    for (char *at = path + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(path, 0755);
        *at = '/';
    }
}

static int unpack(FILE *from, const char *into) {
    struct header header;
    while (fread(&header, 1, sizeof header, from) == sizeof header && header.name[0]) {
        if (strtoul(header.sum, 0, 8) != checksum(&header)) {
            fputs("tar: this does not look like a tar archive\n", stderr);
            return 2;
        }
        char name[300], path[600];
        int has_prefix = !memcmp(header.magic, "ustar", 5) && header.prefix[0];
        snprintf(name, sizeof name, "%.155s%s%.100s", has_prefix ? header.prefix : "", has_prefix ? "/" : "", header.name);
        long long left = strtoll(header.size, 0, 8);
        long long padding = -left & 511;
        snprintf(path, sizeof path, "%s/%s", into, name);
        FILE *file = 0;
        if (leads_out(name)) {
            fprintf(stderr, "tar: %s: is not unpacked\n", name);
        } else if (header.type == '5') {
            size_t length = strlen(path);
            if (path[length - 1] == '/') path[length - 1] = 0;
            if (mkdir(path, 0755) && errno != EEXIST) return fail("tar", path);
        } else if (header.type == '0' || !header.type) {
            make_parents(path);
            if (!(file = fopen(path, "w"))) return fail("tar", path);
        }
        char block[512];
        for (left += padding; left > 0; left -= 512) {
            if (fread(block, 1, 512, from) != 512) return fail("tar", "the archive ends too early");
            long long of_file = left - padding < 512 ? left - padding : 512;
            if (file && of_file > 0) fwrite(block, 1, (size_t)of_file, file);
        }
        if (file && fclose(file)) return fail("tar", path);
    }
    return 0;
}

// What kubectl asks for: `tar cf - PATH...` and `tar -xmf - -C DIRECTORY`, with options that change nothing here.
static int tar(int argc, char **argv) {
    const char *into = ".";
    int extract = 0, failed = 0, first = argc;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-C") && i + 1 < argc) into = argv[++i];
        else if (!strcmp(argv[i], "-")) first = i + 1;
        else if (!strncmp(argv[i], "--", 2)) continue;
        else if (strchr(argv[i], 'x') && argv[i][0] != '/' && i < first) extract = 1;
    }
    if (extract) return unpack(stdin, into);
    for (int i = first; i < argc && !failed; i++) failed = pack(argv[i], stdout);
    static const char end[1024];
    fwrite(end, 1, sizeof end, stdout);
    return failed || fflush(stdout);
}

static int talk(void) {
    char line[1024];
    puts("what is your name?");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        printf("hello %s\n", line);
        fflush(stdout);
    }
    puts("goodbye");
    return 0;
}

int main(int argc, char **argv) {
    const char *tool = argc > 0 ? argv[0] : "";
    if (strrchr(tool, '/')) tool = strrchr(tool, '/') + 1;
    struct stat stat_of;
    if (!strcmp(tool, "cat")) return cat(argc, argv);
    if (!strcmp(tool, "ls")) return ls(argc > 1 ? argv[1] : "/");
    if (!strcmp(tool, "tar")) return tar(argc, argv);
    if (!strcmp(tool, "test"))
        return argc == 3 && !strcmp(argv[1], "-d") ? stat(argv[2], &stat_of) || !S_ISDIR(stat_of.st_mode) : 2;
    if (!strcmp(tool, "exit")) return argc > 1 ? atoi(argv[1]) : 0;
    if (!strcmp(tool, "tty")) {
        puts(isatty(0) ? "a terminal" : "not a tty");
        return !isatty(0);
    }
    if (!strcmp(tool, "talk")) return talk();
    if (!strcmp(tool, "env")) {
        for (char **variable = environ; *variable; variable++) puts(*variable);
        return 0;
    }
    if (!strcmp(tool, "echo")) {
        for (int i = 1; i < argc; i++) printf("%s%s", i > 1 ? " " : "", argv[i]);
        putchar('\n');
        return 0;
    }
    if (!strcmp(tool, "complain")) {
        puts("this is standard output");
        fputs("this is standard error\n", stderr);
        return 1;
    }
    if (!strcmp(tool, "spin"))
        for (volatile unsigned i = 0;; i++) {}
    // The container's own program: tells the time until it is stopped.
    if (argc > 1 && !strcmp(argv[1], "talk")) return talk();
    if (argc > 1) {
        fprintf(stderr, "%s: there is no such tool\n", tool);
        return 127;
    }
    for (unsigned seconds = 0;; seconds++) {
        printf("debug-me: up for %u s\n", seconds);
        fflush(stdout);
        sleep(1);
    }
}
