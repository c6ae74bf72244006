/* A visitors' book: says who was here before, signs, and ends. The book is a file in a volume. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "/data/book";
    const char *name = getenv("HOSTNAME");
    char line[256];
    long visits = 0;
    FILE *book = fopen(path, "r");
    if (book != NULL) {
        while (fgets(line, sizeof line, book) != NULL) {
            visits++;
        }
        fclose(book);
    } else if (errno != ENOENT) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    book = fopen(path, "a");
    if (book == NULL || fprintf(book, "%s\n", name != NULL ? name : "somebody") < 0 || fclose(book) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    printf("%ld before me\n", visits);
    return 0;
}
