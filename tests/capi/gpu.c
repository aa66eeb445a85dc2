/* Run:ai's functions and ringload's own with memory of GPU 0: GPU MODEL.safetensors. */
#include "check.h"
#include "ringload.h"
#include "runai_streamer.h"

#include <dlfcn.h>
#include <string.h>

typedef unsigned long long Address;

static void *driver;

/* The driver's function of this name. */
#define CALL(name, ...)                                                                            \
    do {                                                                                           \
        void *found = dlsym(driver, name);                                                         \
        CHECK(found && ((int (*)())found)(__VA_ARGS__) == 0);                                      \
    } while (0)

static void copy_back(void *into, Address from, size_t size)
{
    CALL("cuMemcpyDtoH_v2", into, from, size);
}

int main(int count, char **arguments)
{
    enum { BYTES = 3000000 };
    const RunaiFileStreamerDevice gpu = {RUNAI_FILE_STREAMER_DEVICE_CUDA, 0};
    const RunaiFileStreamerDevice none = {RUNAI_FILE_STREAMER_DEVICE_CUDA, 999};
    const char *path = arguments[1];
    unsigned char *expected = malloc(BYTES), *is = malloc(BYTES);
    unsigned ranges = 2, file, range;
    size_t offsets[] = {0, 1000001}, sizes[] = {1000001, BYTES - 1000001};
    RingloadLoader *loader = NULL;
    RingloadRange own = {path, 0, BYTES, NULL, 0};
    Address memory = 0;
    void *context, *streamer, *places[2];
    int device, done = 0;
    FILE *opened = fopen(path, "rb");
    CHECK(count == 2 && expected && is && opened && fread(expected, 1, BYTES, opened) == BYTES);
    fclose(opened);

    driver = dlopen("libcuda.so.1", RTLD_NOW);
    CHECK(driver);
    CALL("cuInit", 0);
    CALL("cuDeviceGet", &device, 0);
    CALL("cuDevicePrimaryCtxRetain", &context, device);
    CALL("cuCtxSetCurrent", context);
    CALL("cuMemAlloc_v2", &memory, (size_t)BYTES);

    places[0] = (void *)(uintptr_t)memory;
    places[1] = (void *)(uintptr_t)(memory + offsets[1]);
    CHECK(runai_file_streamer_start(&streamer) == 0);
    CHECK(runai_file_streamer_request(streamer, NULL, 1, &path, &ranges, offsets, sizes, places,
                                      gpu) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(runai_file_streamer_response(streamer, NULL, &file, &range, &done, 0) == 0);
    CHECK(done);
    copy_back(is, memory, BYTES);
    CHECK(memcmp(is, expected, BYTES) == 0);

    CHECK(runai_file_streamer_request(streamer, NULL, 1, &path, &ranges, offsets, sizes, places,
                                      none) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(runai_file_streamer_response(streamer, NULL, &file, &range, &done, 0) ==
              RUNAI_FILE_STREAMER_RESPONSE_INVALID_DEVICE);
    runai_file_streamer_end(streamer);

    memset(is, 0, BYTES);
    own.into = places[0];
    own.offset_bytes = 1;
    own.len_bytes = BYTES - 1;
    CHECK(ringload_loader_new(&loader) == 0);
    CHECK(ringload_read(loader, &own, 1, NULL, NULL) == 0);
    copy_back(is, memory, BYTES - 1);
    CHECK(memcmp(is, expected + 1, BYTES - 1) == 0);
    ringload_loader_free(loader);
    CALL("cuMemFree_v2", memory);
    CALL("cuDevicePrimaryCtxRelease_v2", device);
    puts("ok");
    return 0;
}
