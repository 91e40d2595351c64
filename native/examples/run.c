/* Runs one sequence of token ids at every level of a bundle: run BUNDLE ID [ID ...]
 *
 * cc run.c -IPREFIX/include -LPREFIX/lib -Wl,-rpath,PREFIX/lib -llavolta -o run
 * cc run.c $(pkg-config --cflags --libs lavolta) -o run
 */
#include <lavolta.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what, lavolta_status status)
{
    fprintf(stderr, "%s: %s: %s\n", what, lavolta_status_name(status), lavolta_last_error());
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: run BUNDLE ID [ID ...]\n");
        return 2;
    }
    lavolta_model *model = NULL;
    lavolta_status status = lavolta_open(argv[1], NULL, &model);
    if (status != LAVOLTA_OK) return fail("open", status);

    uint32_t length = (uint32_t)(argc - 2);
    int32_t *ids = malloc(length * sizeof *ids);
    if (!ids) return 1;
    for (uint32_t i = 0; i < length; i++) ids[i] = atoi(argv[i + 2]);
    lavolta_batch batch = {ids, NULL, &length, 1, 0};

    size_t rows, columns;
    status = lavolta_output_shape(model, &batch, &rows, &columns);
    if (status != LAVOLTA_OK) return fail("shape", status);
    float *output = malloc(rows * columns * sizeof *output);
    if (!output) return 1;
    for (uint32_t level = 0; level < lavolta_level_count(model); level++) {
        lavolta_switch(model, level);
        status = lavolta_run(model, &batch, output, rows * columns);
        if (status != LAVOLTA_OK) return fail("run", status);
        printf("level %u:", level);
        for (size_t i = 0; i < rows * columns; i++) printf(" %.9g", (double)output[i]);
        printf("\n");
    }
    free(output);
    free(ids);
    lavolta_close(model);
    return 0;
}
