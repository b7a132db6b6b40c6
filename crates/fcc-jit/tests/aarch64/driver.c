/* Runs exported kernels on the buffers of a file: driver INPUT OUTPUT.
 *
 * INPUT, all words 32 bits in the machine's order: number of cases; for each case number of tasks, number of operands;
 * for each operand its bytes and the data. Case i calls steps[i]. OUTPUT gets the data of all operands afterwards. Every
 * operand stands between guard bytes, which must survive. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void step(void **args, uint64_t task);

#include "kernels.h" /* step *const steps[] */

enum { GUARD = 256, OPERANDS = 16 };

static FILE *in, *out;

static void fail(const char *what, uint32_t at) {
    fprintf(stderr, "case %u: %s\n", at, what);
    exit(1);
}

static uint32_t word(uint32_t at) {
    uint32_t w;
    if (fread(&w, sizeof w, 1, in) != 1) fail("the input ends", at);
    return w;
}

static int intact(const unsigned char *p) {
    for (int i = 0; i < GUARD; i++)
        if (p[i] != 0xa5) return 0;
    return 1;
}

static void run_case(uint32_t at) {
    void *args[OPERANDS];
    uint32_t bytes[OPERANDS];
    uint32_t tasks = word(at), operands = word(at);
    if (operands > OPERANDS) fail("too many operands", at);
    for (uint32_t i = 0; i < operands; i++) {
        bytes[i] = word(at);
        unsigned char *p = malloc(2 * GUARD + (size_t)bytes[i]);
        if (!p) fail("no memory", at);
        memset(p, 0xa5, 2 * GUARD + (size_t)bytes[i]);
        if (bytes[i] && fread(p + GUARD, bytes[i], 1, in) != 1) fail("the input ends", at);
        args[i] = p + GUARD;
    }
    for (uint32_t task = 0; task < tasks; task++) steps[at](args, task);
    for (uint32_t i = 0; i < operands; i++) {
        unsigned char *p = args[i];
        if (!intact(p - GUARD) || !intact(p + bytes[i])) fail("wrote outside an operand", at);
        if (bytes[i] && fwrite(p, bytes[i], 1, out) != 1) fail("cannot write the output", at);
        free(p - GUARD);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    in = fopen(argv[1], "rb");
    out = fopen(argv[2], "wb");
    if (!in || !out) return 2;
    uint32_t cases = word(0);
    if (cases != sizeof steps / sizeof *steps) fail("another number of cases", cases);
    for (uint32_t i = 0; i < cases; i++) run_case(i);
    return fclose(out) != 0;
}
