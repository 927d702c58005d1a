/* Reads 32-bit integers from a file descriptor until its end, and prints each one and the sum. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DESCRIPTOR\n", argv[0]);
        return 2;
    }
    FILE *port = fdopen(atoi(argv[1]), "rb");
    if (port == NULL) {
        perror("fdopen");
        return 1;
    }
    uint32_t number;
    uint64_t sum = 0;
    while (fread(&number, sizeof number, 1, port) == 1) {
        sum += number;
        printf("%lu\n", (unsigned long)number);
    }
    printf("sum %llu\n", (unsigned long long)sum);
    return ferror(port) ? 1 : 0;
}
