/* Run:ai's functions on an object store: remote URI DIRECTORY_URI ENDPOINT KEY SECRET. Prints the first 64
 * bytes of the object in hexadecimal, and what the directory holds. */
#include "check.h"
#include "runai_streamer.h"

#include <string.h>

static void print_file(const char *name, size_t size, void *unused)
{
    (void)unused;
    printf("%s %zu\n", name, size);
}

int main(int count, char **arguments)
{
    const RunaiFileStreamerDevice host = {RUNAI_FILE_STREAMER_DEVICE_CPU, 0};
    const char *keys[] = {"endpoint", "access_key_id", "secret_access_key", "region"};
    const char *values[4], *pattern = "*.safetensors";
    unsigned char bytes[64];
    void *streamer = NULL, *places[] = {bytes, bytes + 8};
    size_t offsets[] = {0, 8}, sizes[] = {8, 56};
    unsigned ranges = 2, file, range;
    int done = 0, code;
    CHECK(count == 6);
    values[0] = arguments[3];
    values[1] = arguments[4];
    values[2] = arguments[5];
    values[3] = "us-east-1";
    CHECK(runai_file_streamer_start(&streamer) == 0);
    CHECK(runai_file_streamer_set_credentials(streamer, keys, values, 4) == 0);
    for (int round = 0; round < 2; round++) {
        const char *uri = arguments[1];
        CHECK(runai_file_streamer_request(streamer, NULL, 1, &uri, &ranges, offsets, sizes, places,
                                          host) == 0);
        for (int i = 0; i < 2; i++) {
            code = runai_file_streamer_response(streamer, NULL, &file, &range, &done, 60000);
            if (code) {
                printf("%d %s\n", code, runai_file_streamer_response_str(code));
                runai_file_streamer_end(streamer);
                return 0;
            }
        }
        CHECK(done);
    }
    for (int i = 0; i < 64; i++)
        printf("%02x", bytes[i]);
    puts("");
    for (int recursive = 0; recursive < 2; recursive++)
        CHECK(runai_file_streamer_list_files(streamer, arguments[2], recursive, &pattern, 1, NULL,
                                             0, print_file, NULL) == 0);
    runai_file_streamer_end(streamer);
    return 0;
}
