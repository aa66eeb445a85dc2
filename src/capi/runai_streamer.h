/* The functions of Run:ai Model Streamer's libstreamer.so, as of 0.17, in libringload.so.
 *
 * Functions return a RunaiFileStreamerResponse; runai_file_streamer_response_str() says more. Every
 * function may be called from any thread, several at once. After a fork, the child starts its own
 * streamers.
 *
 * Written by `RINGLOAD_TEST_WRITE=1 cargo test --test capi_headers`; do not edit.
 */

#ifndef RINGLOAD_RUNAI_STREAMER_H
#define RINGLOAD_RUNAI_STREAMER_H

#include <stddef.h>
#include <stdint.h>

/**
 * What the functions return.
 */
typedef enum RunaiFileStreamerResponse {
  /**
   * It was done.
   */
  RUNAI_FILE_STREAMER_RESPONSE_SUCCESS = 0,
  /**
   * The streamer is being ended: no more responses come.
   */
  RUNAI_FILE_STREAMER_RESPONSE_FINISHED_ERROR = 1,
  /**
   * A file or object cannot be opened or read.
   */
  RUNAI_FILE_STREAMER_RESPONSE_FILE_ACCESS_ERROR = 2,
  /**
   * The range lies beyond the end of the file.
   */
  RUNAI_FILE_STREAMER_RESPONSE_EOF_ERROR = 3,
  /**
   * This build was made without `s3://`.
   */
  RUNAI_FILE_STREAMER_RESPONSE_S3_NOT_SUPPORTED = 4,
  /**
   * Not returned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_GLIBC_PREREQUISITE = 5,
  /**
   * The process has too many open files.
   */
  RUNAI_FILE_STREAMER_RESPONSE_INSUFFICIENT_FD_LIMIT = 6,
  /**
   * An argument cannot be used.
   */
  RUNAI_FILE_STREAMER_RESPONSE_INVALID_PARAMETER_ERROR = 7,
  /**
   * Not returned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_EMPTY_REQUEST_ERROR = 8,
  /**
   * Not returned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_BUSY_ERROR = 9,
  /**
   * Not returned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_CA_FILE_NOT_FOUND = 10,
  /**
   * Anything else.
   */
  RUNAI_FILE_STREAMER_RESPONSE_UNKNOWN_ERROR = 11,
  /**
   * Not returned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_OBJ_PLUGIN_LOAD_ERROR = 12,
  /**
   * This build was made without `gs://`.
   */
  RUNAI_FILE_STREAMER_RESPONSE_GCS_NOT_SUPPORTED = 13,
  /**
   * This build was made without `az://`.
   */
  RUNAI_FILE_STREAMER_RESPONSE_AZURE_BLOB_NOT_SUPPORTED = 14,
  /**
   * The file or object was replaced, cut off or corrupted while it was read.
   */
  RUNAI_FILE_STREAMER_RESPONSE_FILE_TRUNCATED_ERROR = 15,
  /**
   * No response came in time.
   */
  RUNAI_FILE_STREAMER_RESPONSE_TIMED_OUT = 16,
  /**
   * Not returned: stores and files may be mixed.
   */
  RUNAI_FILE_STREAMER_RESPONSE_UNSUPPORTED_BACKEND_MIX = 17,
  /**
   * Other credentials were set before.
   */
  RUNAI_FILE_STREAMER_RESPONSE_CREDENTIALS_ALREADY_SET = 18,
  /**
   * Not returned: what can be asked for again was.
   */
  RUNAI_FILE_STREAMER_RESPONSE_RETRYABLE_FILE_ACCESS_ERROR = 19,
  /**
   * Another strategy was set before, or files were read already.
   */
  RUNAI_FILE_STREAMER_RESPONSE_FS_STRATEGY_CONFLICT = 20,
  /**
   * Not returned: where a machine lacks one, the next best is taken.
   */
  RUNAI_FILE_STREAMER_RESPONSE_FS_STRATEGY_UNAVAILABLE = 21,
  /**
   * Not returned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_FS_ASYNC_ENGINE_ERROR = 22,
  /**
   * The device is neither the host nor a CUDA GPU.
   */
  RUNAI_FILE_STREAMER_RESPONSE_UNSUPPORTED_DEVICE_TYPE = 23,
  /**
   * There is no driver, or no GPU.
   */
  RUNAI_FILE_STREAMER_RESPONSE_DEVICE_UNAVAILABLE = 24,
  /**
   * There is no GPU of this number, or an address is not of its memory.
   */
  RUNAI_FILE_STREAMER_RESPONSE_INVALID_DEVICE = 25,
  /**
   * The GPU has too little memory, or too little can be pinned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_DEVICE_OUT_OF_MEMORY = 26,
  /**
   * Not returned.
   */
  RUNAI_FILE_STREAMER_RESPONSE_DEVICE_TRANSFER_ERROR = 27,
  /**
   * The GPU or its driver failed.
   */
  RUNAI_FILE_STREAMER_RESPONSE_DEVICE_DRIVER_ERROR = 28,
} RunaiFileStreamerResponse;
typedef RunaiFileStreamerResponse RunaiFileStreamerResponseCode;

/**
 * Says which submission a response is of.
 */
typedef uint64_t RunaiFileStreamerSubmissionId;

/**
 * A kind of device: one of the two below.
 */
typedef int RunaiFileStreamerDeviceType;

/**
 * Where the destinations of a request are.
 */
typedef struct RunaiFileStreamerDevice {
  /**
   * What it is.
   */
  RunaiFileStreamerDeviceType type;
  /**
   * The number of the GPU; nothing for host memory.
   */
  int id;
} RunaiFileStreamerDevice;

/**
 * Called with each file: its path, its size in bytes, and what was given for it.
 */
typedef void (*RunaiFileStreamerFileListCallback)(const char *path,
                                                  size_t file_size,
                                                  void *user_data);

/**
 * Host memory.
 */
#define RUNAI_FILE_STREAMER_DEVICE_CPU 0

/**
 * Memory of a CUDA GPU.
 */
#define RUNAI_FILE_STREAMER_DEVICE_CUDA 1

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Starts a streamer, with the options of the environment.
 *
 * Threads are started with the first request. A variable that cannot be read is an
 * INVALID_PARAMETER_ERROR.
 *
 * Has to hold: `streamer` is NULL or a place for a pointer.
 */
int runai_file_streamer_start(void **streamer);

/**
 * Ends a streamer: threads that wait for a response get FINISHED_ERROR, reads under way are stopped, and
 * when this returns nobody writes to memory of its requests any more. NULL and ended ones are ignored.
 */
void runai_file_streamer_end(void *streamer);

/**
 * Sets the credentials for object stores, once, before the first request for an object.
 *
 * Keys: access_key_id and secret_access_key, session_token, region, endpoint; others are ignored. The
 * same again is fine, others are CREDENTIALS_ALREADY_SET. Without, they are looked for as in ringload's
 * own loads.
 *
 * Has to hold: `param_keys` and `param_values` each have `num_params` texts.
 */
int runai_file_streamer_set_credentials(void *streamer,
                                        const char *const *param_keys,
                                        const char *const *param_values,
                                        unsigned int num_params);

/**
 * Says how files are read, once, before the first request: a list of io_uring_direct,
 * io_uring_buffered, libaio_direct and sync_buffered, best first. All are served, so the first counts;
 * `direct` means directly where the file is not in the page cache.
 *
 * Has to hold: `candidates` is NULL or a text.
 */
int runai_file_streamer_set_fs_strategy(void *streamer,
                                        const char *candidates);

/**
 * Asks for ranges of files and objects, and returns at once.
 *
 * `num_ranges` has the number of each file's ranges; the three arrays behind it have all of them, file
 * by file: where each begins in its file, how long it is, and where its bytes go. Each range gets
 * exactly one response, also an empty one. Files and stores may be mixed.
 *
 * The arrays are not needed any more when this returns. The memory of the ranges is, until their
 * response was taken or the streamer was ended; ranges, also of other requests, must not overlap there.
 * On a GPU, work that was queued before must be done with it.
 *
 * `out_submission_id` (may be NULL) gets the number that responses are told apart by; 0 where the
 * arguments cannot be used, and nothing was asked for then.
 *
 * Has to hold: The arrays are as said, and so is the memory.
 */
int runai_file_streamer_request(void *streamer,
                                RunaiFileStreamerSubmissionId *out_submission_id,
                                unsigned int num_files,
                                const char *const *paths,
                                const unsigned int *num_ranges,
                                const size_t *range_offsets,
                                const size_t *range_sizes,
                                void *const *range_dsts,
                                struct RunaiFileStreamerDevice device);

/**
 * Waits for the next response, of whatever request: at most `timeout_ms` milliseconds, 0 as long as it
 * takes.
 *
 * Returns what the range came to: SUCCESS, or why its memory does not hold its bytes. Else TIMED_OUT, or
 * FINISHED_ERROR when the streamer is ended. `submission_done` is 1 with the last response of a request.
 * `out_submission_id` and `submission_done` may be NULL.
 *
 * Has to hold: The pointers are NULL or places for what is written to them.
 */
int runai_file_streamer_response(void *streamer,
                                 RunaiFileStreamerSubmissionId *out_submission_id,
                                 unsigned int *file_index,
                                 unsigned int *index,
                                 int *submission_done,
                                 unsigned int timeout_ms);

/**
 * What a response code means. For the code that this thread was answered with last, the very error;
 * so the text is there until the thread calls another function of the library.
 */
const char *runai_file_streamer_response_str(int response_code);

/**
 * Tells modulo what the address of a range should be congruent to its offset, so that the files at
 * `paths` can be read directly. Objects do not matter.
 *
 * UNKNOWN_ERROR where no file can be asked; `out_block` then is the size of a page, and can be used.
 *
 * Has to hold: `paths` has `num_paths` texts, and `out_block` is NULL or a place for a number.
 */
int runai_file_streamer_probe_direct_block_size(void *streamer,
                                                const char *const *paths,
                                                unsigned int num_paths,
                                                size_t *out_block);

/**
 * Calls `callback` with every file in the directory `prefix`, of the file system or a store, and with its
 * size in bytes; with `is_recursive` not 0 also with those further down.
 *
 * With `allow_patterns`, only with those whose whole path matches one of them, as fnmatch(3) without flags
 * has it; never with those that match one of `ignore_patterns`. Called on this thread; the path is there
 * during the call only.
 *
 * Has to hold: The arrays have so many texts, and `callback` may be called with `user_data`.
 */
int runai_file_streamer_list_files(void *streamer,
                                   const char *prefix,
                                   int is_recursive,
                                   const char *const *allow_patterns,
                                   unsigned int num_allow_patterns,
                                   const char *const *ignore_patterns,
                                   unsigned int num_ignore_patterns,
                                   RunaiFileStreamerFileListCallback callback,
                                   void *user_data);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RINGLOAD_RUNAI_STREAMER_H */
