/* Run:ai's functions: runai MODEL.safetensors, whose byte at offset n is checked against stdio. */
#include "check.h"
#include "runai_streamer.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANGES = 64, THREADS = 4, ROUNDS = 20 };

static const RunaiFileStreamerDevice HOST = {RUNAI_FILE_STREAMER_DEVICE_CPU, 0};
static const char *path;
static unsigned char *bytes;
static size_t size;

static void read_all(void)
{
    FILE *file = fopen(path, "rb");
    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    size = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(size);
    CHECK(bytes && fread(bytes, 1, size, file) == size);
    fclose(file);
}

static void *started(void)
{
    void *streamer = NULL;
    CHECK(runai_file_streamer_start(&streamer) == RUNAI_FILE_STREAMER_RESPONSE_SUCCESS);
    CHECK(streamer);
    return streamer;
}

/* The whole file in RANGES ranges, in one request; the answers are counted. */
static void stream_whole(void *streamer)
{
    unsigned char *into = malloc(size);
    size_t offsets[RANGES], sizes[RANGES], step = size / RANGES;
    void *places[RANGES];
    unsigned char seen[RANGES] = {0};
    unsigned count = RANGES, file, range;
    int done = 0;
    RunaiFileStreamerSubmissionId id = 0, of;
    CHECK(into);
    for (unsigned i = 0; i < RANGES; i++) {
        offsets[i] = i * step;
        sizes[i] = i + 1 == RANGES ? size - i * step : step;
        places[i] = into + offsets[i];
    }
    CHECK(runai_file_streamer_request(streamer, &id, 1, &path, &count, offsets, sizes, places,
                                      HOST) == RUNAI_FILE_STREAMER_RESPONSE_SUCCESS);
    for (unsigned i = 0; i < RANGES; i++) {
        CHECK(!done);
        CHECK(runai_file_streamer_response(streamer, &of, &file, &range, &done, 0) == 0);
        CHECK(of == id && file == 0 && range < RANGES && !seen[range]);
        seen[range] = 1;
        CHECK(memcmp(places[range], bytes + offsets[range], sizes[range]) == 0);
    }
    CHECK(done && memcmp(into, bytes, size) == 0);
    free(into);
}

static void *stream_on_and_on(void *unused)
{
    (void)unused;
    for (int round = 0; round < ROUNDS; round++) {
        void *streamer = started();
        stream_whole(streamer);
        stream_whole(streamer);
        runai_file_streamer_end(streamer);
    }
    return NULL;
}

/* A file that is not there fails for its own ranges alone, as does a range beyond the end. */
static void fail_in_part(void)
{
    void *streamer = started();
    const char *paths[] = {path, "/nonexistent/file", path};
    unsigned counts[] = {2, 2, 1}, file, range;
    size_t offsets[] = {0, size, 0, 8, 4}, sizes[] = {8, 1, 8, 0, 4};
    unsigned char into[5][8];
    void *places[] = {into[0], into[1], into[2], into[3], into[4]};
    int expected[3][2] = {{0, RUNAI_FILE_STREAMER_RESPONSE_EOF_ERROR},
                          {RUNAI_FILE_STREAMER_RESPONSE_FILE_ACCESS_ERROR,
                           RUNAI_FILE_STREAMER_RESPONSE_FILE_ACCESS_ERROR},
                          {0, -1}};
    int done = 0;
    CHECK(runai_file_streamer_request(streamer, NULL, 3, paths, counts, offsets, sizes, places,
                                      HOST) == 0);
    for (int i = 0; i < 5; i++) {
        int code = runai_file_streamer_response(streamer, NULL, &file, &range, &done, 10000);
        const char *why = runai_file_streamer_response_str(code);
        CHECK(file < 3 && range < 2 && code == expected[file][range]);
        expected[file][range] = -2; /* once */
        CHECK(done == (i == 4));
        if (code == RUNAI_FILE_STREAMER_RESPONSE_FILE_ACCESS_ERROR)
            CHECK(strstr(why, "/nonexistent/file"));
    }
    CHECK(memcmp(into[0], bytes, 8) == 0 && memcmp(into[4], bytes + 4, 4) == 0);
    runai_file_streamer_end(streamer);
}

static void refuse_lies(void)
{
    const int invalid = RUNAI_FILE_STREAMER_RESPONSE_INVALID_PARAMETER_ERROR;
    void *streamer = started(), *memory = &streamer, *none = NULL;
    size_t zero = 0, one = 1, huge = (size_t)-1, block = 0;
    unsigned count = 1, file, range;
    RunaiFileStreamerDevice abacus = {7, 0};
    RunaiFileStreamerSubmissionId id = 99;
    const char *no_path = NULL;
    CHECK(runai_file_streamer_start(NULL) == invalid);
#define REQUEST(handle, paths, counts, offset, length, place, device)                              \
    runai_file_streamer_request(handle, &id, 1, paths, counts, offset, length, place, device)
    CHECK(REQUEST(NULL, &path, &count, &zero, &one, &memory, HOST) == invalid && id == 0);
    CHECK(REQUEST(&file, &path, &count, &zero, &one, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, NULL, &count, &zero, &one, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, &no_path, &count, &zero, &one, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, NULL, &zero, &one, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, &count, NULL, &one, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, &count, &zero, NULL, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, &count, &zero, &one, NULL, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, &count, &zero, &one, &none, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, &count, &zero, &huge, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, &count, &huge, &one, &memory, HOST) == invalid);
    CHECK(REQUEST(streamer, &path, &count, &zero, &one, &memory, abacus) ==
          RUNAI_FILE_STREAMER_RESPONSE_UNSUPPORTED_DEVICE_TYPE);
    CHECK(runai_file_streamer_response(streamer, NULL, NULL, &range, NULL, 1) == invalid);
    CHECK(runai_file_streamer_response(streamer, NULL, &file, &range, NULL, 1) ==
          RUNAI_FILE_STREAMER_RESPONSE_TIMED_OUT);
    CHECK(runai_file_streamer_probe_direct_block_size(streamer, &path, 1, NULL) == invalid);
    CHECK(runai_file_streamer_probe_direct_block_size(streamer, &path, 1, &block) == 0);
    CHECK(block >= 512 && (block & (block - 1)) == 0);
    runai_file_streamer_end(streamer);
    runai_file_streamer_end(streamer);
    runai_file_streamer_end(NULL);
    CHECK(REQUEST(streamer, &path, &count, &zero, &one, &memory, HOST) == invalid);
    CHECK(runai_file_streamer_response(streamer, NULL, &file, &range, NULL, 0) ==
          RUNAI_FILE_STREAMER_RESPONSE_FINISHED_ERROR);
    CHECK(runai_file_streamer_response(&file, NULL, &file, &range, NULL, 0) == invalid);
}

static void *wait_for_response(void *streamer)
{
    unsigned file, range;
    CHECK(runai_file_streamer_response(streamer, NULL, &file, &range, NULL, 0) ==
          RUNAI_FILE_STREAMER_RESPONSE_FINISHED_ERROR);
    return NULL;
}

/* Ending a streamer wakes threads that wait, cancels its requests, and then their memory may be freed. */
static void end_in_the_middle(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        void *streamer = started();
        unsigned char *into = malloc(size);
        size_t zero = 0;
        unsigned count = 1;
        CHECK(into && runai_file_streamer_request(streamer, NULL, 1, &path, &count, &zero, &size,
                                                  (void *const *)&into, HOST) == 0);
        usleep((useconds_t)round * 300);
        runai_file_streamer_end(streamer);
        memset(into, 0x5a, size);
        usleep(5000);
        for (size_t i = 0; i < size; i++)
            CHECK(into[i] == 0x5a); /* nobody writes there any more */
        free(into);
    }
    pthread_t waiting;
    void *streamer = started();
    CHECK(pthread_create(&waiting, NULL, wait_for_response, streamer) == 0);
    usleep(50000); /* it waits, most likely */
    runai_file_streamer_end(streamer);
    CHECK(pthread_join(waiting, NULL) == 0);
}

/* In a child of fork, what is the parent's is an error, and nothing hangs. */
static void fork_in_between(void)
{
    void *streamer = started(), *into = malloc(size);
    size_t zero = 0;
    unsigned count = 1, file, range;
    pid_t child;
    int status;
    CHECK(into);
    stream_whole(streamer);
    CHECK(runai_file_streamer_request(streamer, NULL, 1, &path, &count, &zero, &size, &into,
                                      HOST) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(runai_file_streamer_response(streamer, NULL, &file, &range, NULL, 0) ==
              RUNAI_FILE_STREAMER_RESPONSE_UNKNOWN_ERROR);
        CHECK(runai_file_streamer_request(streamer, NULL, 1, &path, &count, &zero, &size, &into,
                                          HOST) == RUNAI_FILE_STREAMER_RESPONSE_UNKNOWN_ERROR);
        runai_file_streamer_end(streamer);
        streamer = started();
        stream_whole(streamer);
        runai_file_streamer_end(streamer);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(runai_file_streamer_response(streamer, NULL, &file, &range, NULL, 0) == 0);
    CHECK(memcmp(into, bytes, size) == 0);
    runai_file_streamer_end(streamer);
    free(into);
}

static void set_once(void)
{
    void *streamer = started();
    const char *keys[] = {"region", "access_key_id", "secret_access_key"};
    const char *values[] = {"nowhere-1", "id", "secret"};
    CHECK(runai_file_streamer_set_credentials(streamer, keys, values, 3) == 0);
    CHECK(runai_file_streamer_set_credentials(streamer, keys, values, 3) == 0);
    values[2] = "another";
    CHECK(runai_file_streamer_set_credentials(streamer, keys, values, 3) ==
          RUNAI_FILE_STREAMER_RESPONSE_CREDENTIALS_ALREADY_SET);
    CHECK(runai_file_streamer_set_fs_strategy(streamer, "sync_buffered") == 0);
    stream_whole(streamer);
    CHECK(runai_file_streamer_set_fs_strategy(streamer, "sync_buffered") == 0);
    CHECK(runai_file_streamer_set_fs_strategy(streamer, "io_uring_direct") ==
          RUNAI_FILE_STREAMER_RESPONSE_FS_STRATEGY_CONFLICT);
    CHECK(runai_file_streamer_set_fs_strategy(streamer, "magic") ==
          RUNAI_FILE_STREAMER_RESPONSE_INVALID_PARAMETER_ERROR);
    runai_file_streamer_end(streamer);
}

static void count_files(const char *name, size_t bytes_of_it, void *count)
{
    CHECK(strstr(name, ".safetensors") && bytes_of_it == size);
    ++*(unsigned *)count;
}

static void list(void)
{
    void *streamer = started();
    char directory[4096];
    const char *all = "*.safetensors", *none = "*";
    unsigned count = 0;
    CHECK(strlen(path) < sizeof directory);
    strcpy(directory, path);
    *strrchr(directory, '/') = 0;
    CHECK(runai_file_streamer_list_files(streamer, directory, 1, &all, 1, NULL, 0, count_files,
                                         &count) == 0);
    CHECK(count == 1);
    CHECK(runai_file_streamer_list_files(streamer, directory, 0, &all, 1, &none, 1, count_files,
                                         &count) == 0);
    CHECK(count == 1);
    CHECK(runai_file_streamer_list_files(streamer, directory, 0, NULL, 0, NULL, 0, NULL, NULL) ==
          RUNAI_FILE_STREAMER_RESPONSE_INVALID_PARAMETER_ERROR);
    runai_file_streamer_end(streamer);
}

int main(int count, char **arguments)
{
    pthread_t threads[THREADS];
    CHECK(count == 2);
    path = arguments[1];
    read_all();
    fail_in_part();
    refuse_lies();
    end_in_the_middle();
    fork_in_between();
    set_once();
    list();
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, stream_on_and_on, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    free(bytes);
    puts("ok");
    return 0;
}
