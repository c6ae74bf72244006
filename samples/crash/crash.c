/* Says a word, waits a moment, and traps. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    printf("about to trap\n");
    fflush(stdout);
    usleep(200 * 1000);
    __builtin_trap();
}
