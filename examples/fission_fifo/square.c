/* Reads 32-bit integers from the file after -i until its end, and writes their squares to the one after -o. */
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    FILE *in = NULL, *out = NULL;
    for (int option; (option = getopt(argc, argv, "i:o:")) != -1;) {
        if (option == 'i')
            in = fopen(optarg, "rb");
        else if (option == 'o')
            out = fopen(optarg, "wb");
    }
    if (in == NULL || out == NULL) {
        fprintf(stderr, "usage: %s -i PATH -o PATH\n", argv[0]);
        return 2;
    }
    setvbuf(out, NULL, _IONBF, 0); /* each number as soon as it is there */
    uint32_t number;
    while (fread(&number, sizeof number, 1, in) == 1) {
        number *= number;
        if (fwrite(&number, sizeof number, 1, out) != 1) {
            perror("fwrite");
            return 1;
        }
    }
    return ferror(in) || fclose(out) ? 1 : 0;
}
