/* A job: works for a moment, says what it did, and ends with the exit code it was asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    long exit_code = 0;
    long upto = 20000;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--exit-code=", 12) == 0) {
            exit_code = strtol(argv[i] + 12, NULL, 10);
        } else if (strncmp(argv[i], "--primes-up-to=", 15) == 0) {
            upto = strtol(argv[i] + 15, NULL, 10);
        } else {
            fprintf(stderr, "batch: unknown argument %s\n", argv[i]);
            return 64;
        }
    }
    long count = 0;
    for (long n = 2; n < upto; n++) {
        int prime = 1;
        for (long d = 2; d * d <= n; d++) {
            if (n % d == 0) { prime = 0; break; }
        }
        count += prime;
    }
    printf("%ld primes below %ld\n", count, upto);
    if (exit_code != 0) {
        fprintf(stderr, "ending with exit code %ld, as asked\n", exit_code);
    }
    return (int)exit_code;
}
