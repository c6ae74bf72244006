/* Takes memory, one MiB after another, until it gets no more; then it aborts, as programs do that do not expect that. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every block is kept here, so that no compiler takes it for something nobody needs. */
static void *volatile last_block;

int main(void) {
    const size_t step = 1 << 20;
    for (int taken = 1;; taken++) {
        char *block = malloc(step);
        if (block == NULL) {
            fprintf(stderr, "no more memory after %d MiB\n", taken - 1);
            abort();
        }
        memset(block, 0x5a, step);
        last_block = block;
        if (taken % 8 == 0) {
            printf("%d MiB\n", taken);
            fflush(stdout);
        }
    }
}
