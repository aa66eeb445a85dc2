/* ringload's own functions: native MODEL.safetensors. Prints each tensor: name, dtype, shape, sum. */
#include "check.h"
#include "ringload.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *path;

static RingloadLoader *loader_with(const char *key, const char *value)
{
    RingloadLoader *loader = NULL;
    CHECK(ringload_loader_new(&loader) == RINGLOAD_STATUS_OK);
    CHECK(ringload_loader_set(loader, key, value) == RINGLOAD_STATUS_OK);
    return loader;
}

static RingloadStream *stream_of(RingloadLoader *loader)
{
    RingloadStream *stream = NULL;
    int status = ringload_stream_open(loader, path, &stream);
    if (status)
        fprintf(stderr, "%s\n", ringload_error());
    CHECK(status == RINGLOAD_STATUS_OK && stream);
    return stream;
}

static void print(const RingloadTensor *tensor)
{
    unsigned char *copy = malloc(tensor->len_bytes + 1);
    unsigned long sum = 0;
    CHECK(copy && tensor->device == -1);
    CHECK(ringload_tensor_copy(tensor, copy, tensor->len_bytes) == RINGLOAD_STATUS_OK);
    if (tensor->len_bytes)
        CHECK(memcmp(copy, (const void *)(uintptr_t)tensor->address, tensor->len_bytes) == 0);
    CHECK(ringload_tensor_copy(tensor, copy, tensor->len_bytes + 1) ==
          RINGLOAD_STATUS_INVALID_INPUT);
    for (uint64_t i = 0; i < tensor->len_bytes; i++)
        sum += copy[i];
    printf("%s %s [", tensor->name, tensor->dtype);
    for (size_t i = 0; i < tensor->dimensions; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)tensor->shape[i]);
    printf("] %lu\n", sum);
    free(copy);
}

static void stream_all(void)
{
    RingloadLoader *loader = loader_with("order", "file");
    RingloadStream *stream = stream_of(loader);
    RingloadTensor tensor, kept, copy;
    uint64_t done = 0, total = 0;
    int status, first = 1;
    while ((status = ringload_stream_next(stream, &tensor)) == RINGLOAD_STATUS_OK) {
        if (first) {
            kept = tensor;
            first = 0;
            continue;
        }
        print(&tensor);
        copy = tensor;
        ringload_tensor_release(&tensor);
        CHECK(!tensor.owner && !tensor.name);
        ringload_tensor_release(&copy); /* released: ignored */
        ringload_tensor_release(&tensor);
    }
    CHECK(status == RINGLOAD_STATUS_END);
    CHECK(ringload_stream_next(stream, &tensor) == RINGLOAD_STATUS_END);
    CHECK(ringload_stream_progress(stream, &done, &total) == 0 && done == total && total > 0);
    ringload_stream_free(stream);
    ringload_loader_free(loader);
    print(&kept); /* outlives both */
    ringload_tensor_release(&kept);
    ringload_tensor_release(NULL);
}

static void refuse_lies(void)
{
    const int invalid = RINGLOAD_STATUS_INVALID_INPUT;
    RingloadLoader *loader = loader_with("engines", "1");
    RingloadStream *stream = NULL;
    RingloadTensor tensor;
    char memory[8];
    RingloadRange range = {path, 0, 8, memory, -1};
    CHECK(*ringload_version());
    CHECK(ringload_loader_new(NULL) == invalid);
    CHECK(ringload_loader_set(NULL, "engines", "1") == invalid);
    CHECK(ringload_loader_set(loader, NULL, "1") == invalid);
    CHECK(ringload_loader_set(loader, "engines", NULL) == invalid);
    CHECK(ringload_loader_set(loader, "engines", "\xff") == invalid);
    CHECK(ringload_loader_set(loader, "colour", "blue") == invalid);
    CHECK(strstr(ringload_error(), "colour"));
    CHECK(ringload_stream_open(loader, NULL, &stream) == invalid);
    CHECK(ringload_stream_open(loader, path, NULL) == invalid);
    CHECK(ringload_stream_open((RingloadLoader *)memory, path, &stream) == invalid);
    CHECK(ringload_stream_open(loader, "/nonexistent.safetensors", &stream) ==
          RINGLOAD_STATUS_NOT_FOUND);
    CHECK(strstr(ringload_error(), "/nonexistent.safetensors") && !stream);
    CHECK(ringload_stream_next(NULL, &tensor) == invalid);
    CHECK(ringload_stream_next((RingloadStream *)loader, &tensor) == invalid);
    CHECK(ringload_read(loader, NULL, 1, NULL, NULL) == invalid);
    range.len_bytes = UINT64_MAX;
    CHECK(ringload_read(loader, &range, 1, NULL, NULL) == invalid);
    range.len_bytes = 8;
    range.device = -2;
    CHECK(ringload_read(loader, &range, 1, NULL, NULL) == invalid);
    range.device = -1;
    range.into = NULL;
    CHECK(ringload_read(loader, &range, 1, NULL, NULL) == invalid);
    range.into = memory;
    CHECK(ringload_read(loader, &range, 1, NULL, NULL) == RINGLOAD_STATUS_OK);
    ringload_stream_free(NULL);
    ringload_loader_free(loader);
    ringload_loader_free(loader);
    CHECK(ringload_read(loader, &range, 1, NULL, NULL) == invalid);
}

static int count_ranges(size_t range, void *seen)
{
    ((int *)seen)[range]++;
    return 0;
}

static int stop(size_t range, void *unused)
{
    (void)range, (void)unused;
    return 1;
}

static void read_ranges(void)
{
    RingloadLoader *loader = loader_with("read_path", "buffered");
    unsigned char memory[3][16], expected[16];
    RingloadRange ranges[] = {
        {path, 0, 16, memory[0], -1}, {path, 0, 0, NULL, -1}, {path, 8, 8, memory[2], -1}};
    int seen[3] = {0, 0, 0};
    FILE *file = fopen(path, "rb");
    CHECK(file && fread(expected, 1, 16, file) == 16);
    fclose(file);
    CHECK(ringload_read(loader, ranges, 3, count_ranges, seen) == RINGLOAD_STATUS_OK);
    CHECK(seen[0] == 1 && seen[1] == 1 && seen[2] == 1);
    CHECK(memcmp(memory[0], expected, 16) == 0 && memcmp(memory[2], expected + 8, 8) == 0);
    CHECK(ringload_read(loader, ranges, 3, stop, NULL) == RINGLOAD_STATUS_CANCELLED);
    CHECK(ringload_read(loader, ranges, 0, NULL, NULL) == RINGLOAD_STATUS_OK);
    ringload_loader_free(loader);
}

static void *take_all(void *stream)
{
    RingloadTensor tensor;
    long count = 0;
    while (ringload_stream_next(stream, &tensor) == RINGLOAD_STATUS_OK) {
        ringload_tensor_release(&tensor);
        count++;
    }
    return (void *)count;
}

static void share(void)
{
    RingloadLoader *loader = loader_with("memory_limit", "unlimited");
    pthread_t threads[4];
    for (int freed = 0; freed < 2; freed++) {
        RingloadStream *stream = stream_of(loader);
        long count = 0;
        for (int i = 0; i < 4; i++)
            CHECK(pthread_create(&threads[i], NULL, take_all, stream) == 0);
        if (freed)
            ringload_stream_free(stream);
        for (int i = 0; i < 4; i++) {
            void *result;
            CHECK(pthread_join(threads[i], &result) == 0);
            count += (long)result;
        }
        CHECK(freed || count == 3);
        ringload_stream_free(stream);
    }
    ringload_loader_free(loader);
}

/* A forked child is refused the handles of its parent, and nothing hangs. */
static void fork_in_between(void)
{
    RingloadLoader *loader = loader_with("engines", "1");
    RingloadStream *stream = stream_of(loader);
    RingloadTensor tensor;
    pid_t child = fork();
    int status;
    CHECK(child >= 0);
    if (child == 0) {
        RingloadLoader *own = NULL;
        CHECK(ringload_stream_next(stream, &tensor) == RINGLOAD_STATUS_INVALID_INPUT);
        CHECK(strstr(ringload_error(), "fork"));
        ringload_stream_free(stream);
        ringload_loader_free(loader);
        CHECK(ringload_loader_new(&own) == 0 && ringload_stream_open(own, path, &stream) == 0);
        CHECK(take_all(stream) == (void *)3);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(take_all(stream) == (void *)3);
    ringload_stream_free(stream);
    ringload_loader_free(loader);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    path = arguments[1];
    fork_in_between();
    refuse_lies();
    read_ranges();
    share();
    stream_all();
    return 0;
}
