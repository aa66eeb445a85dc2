/* ringload: loads safetensors checkpoints into memory.
 *
 * Link with -lringload (`cargo build --release --features capi` makes it). Functions return a
 * RingloadStatus; ringload_error() says more. Every function may be called from any thread, several at
 * once. After a fork, the child makes its own loaders.
 *
 * Written by `RINGLOAD_TEST_WRITE=1 cargo test --test capi_headers`; do not edit.
 */

#ifndef RINGLOAD_H
#define RINGLOAD_H

#include <stddef.h>
#include <stdint.h>

/**
 * What the functions return.
 */
typedef enum RingloadStatus {
  /**
   * It was done.
   */
  RINGLOAD_STATUS_OK = 0,
  /**
   * There are no more tensors.
   */
  RINGLOAD_STATUS_END = 1,
  /**
   * An option or argument cannot be used as given.
   */
  RINGLOAD_STATUS_INVALID_INPUT = 2,
  /**
   * A file, directory, shard or tensor that was asked for does not exist.
   */
  RINGLOAD_STATUS_NOT_FOUND = 3,
  /**
   * The operating system or a store refused access.
   */
  RINGLOAD_STATUS_PERMISSION_DENIED = 4,
  /**
   * The bytes are not a valid checkpoint.
   */
  RINGLOAD_STATUS_INVALID_CHECKPOINT = 5,
  /**
   * A source changed while it was being read.
   */
  RINGLOAD_STATUS_CHANGED = 6,
  /**
   * The bytes that came are not those that their store says it keeps.
   */
  RINGLOAD_STATUS_CORRUPT = 7,
  /**
   * The tensors do not fit under the memory limit.
   */
  RINGLOAD_STATUS_MEMORY_LIMIT = 8,
  /**
   * Memory could not be allocated, mapped or locked.
   */
  RINGLOAD_STATUS_OUT_OF_MEMORY = 9,
  /**
   * This build or machine cannot do what was asked.
   */
  RINGLOAD_STATUS_UNSUPPORTED = 10,
  /**
   * A server cannot be reached.
   */
  RINGLOAD_STATUS_UNREACHABLE = 11,
  /**
   * Storage failed to deliver the bytes.
   */
  RINGLOAD_STATUS_IO = 12,
  /**
   * A GPU or its driver failed.
   */
  RINGLOAD_STATUS_DEVICE = 13,
  /**
   * The load was stopped before it was done.
   */
  RINGLOAD_STATUS_CANCELLED = 14,
  /**
   * A bug in ringload.
   */
  RINGLOAD_STATUS_BUG = 15,
} RingloadStatus;

/**
 * Options of loads, and what loads share: credentials, the pinned ring, the cache.
 */
typedef struct RingloadLoader RingloadLoader;

/**
 * The tensors of a load, one after the other.
 */
typedef struct RingloadStream RingloadStream;

/**
 * A tensor. What it points to stays until it is released.
 */
typedef struct RingloadTensor {
  /**
   * Its name, in UTF-8.
   */
  const char *name;
  /**
   * The type of its elements, as safetensors calls it: `F32`, `BF16`, `F8_E4M3`.
   */
  const char *dtype;
  /**
   * The sizes of its dimensions, the outermost first; NULL for a scalar.
   */
  const uint64_t *shape;
  /**
   * How many dimensions it has.
   */
  size_t dimensions;
  /**
   * Where its elements are, row-major and little-endian, in the address space of its device.
   */
  uint64_t address;
  /**
   * How many bytes they take.
   */
  uint64_t len_bytes;
  /**
   * -1 for host memory, else the number of the CUDA GPU.
   */
  int32_t device;
  /**
   * What ringload keeps of it.
   */
  void *owner;
} RingloadTensor;

/**
 * A range of a file or object, and where its bytes go.
 */
typedef struct RingloadRange {
  /**
   * A path or URI.
   */
  const char *location;
  /**
   * Where it begins there.
   */
  uint64_t offset_bytes;
  /**
   * How long it is.
   */
  uint64_t len_bytes;
  /**
   * Where its bytes go, on `device`.
   */
  void *into;
  /**
   * -1 for host memory, else the number of a CUDA GPU.
   */
  int32_t device;
} RingloadRange;

/**
 * Called by ringload_read with the number of a range whose memory is filled; what is not 0 stops the
 * rest.
 */
typedef int (*RingloadRangeCallback)(size_t range, void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, as `0.1.0`.
 */
const char *ringload_version(void);

/**
 * Why the last call of this thread that failed did, in a sentence; empty if none did. It is there until
 * another call of this thread fails.
 */
const char *ringload_error(void);

/**
 * Makes a loader with the default options.
 *
 * Has to hold: `loader` is NULL or a place for a pointer.
 */
int ringload_loader_new(struct RingloadLoader **loader);

/**
 * Sets an option for later loads.
 *
 * - `memory_limit`: unlimited, min, or a size such as 4GiB
 * - `device`: cpu, cuda or cuda:N
 * - `device_map`: rules GLOB=DEVICE, one per line; the first that matches a tensor's name counts
 * - `dtype`: cast floats to F32, F16 or BF16
 * - `allocation`: of GPU memory, per shard or tensor
 * - `tensors`: globs of names to load, one per line
 * - `names`: names to load, one per line; a name that no tensor has is an error
 * - `order`: completion or file
 * - `read_path`: auto, direct, buffered, mapped or gds
 * - `read_size`: bytes of one read or range request, such as 8MiB
 * - `engines`: number of threads that read; 0 uses as many as help
 * - `hold_timeout_seconds`: how long a load waits for a held tensor when memory is full
 * - `verify`: true or false; whether objects are checked against their store's checksums
 * - `region`, `endpoint`: of the object store
 * - `header`: a header `Name: value` to send; each call adds one
 * - `connections`: number of connections; 0 uses as many as help
 * - `s3_access_key_id`, `s3_secret_access_key`, `s3_session_token`: S3 keys
 * - `cache_dir`: directory of the local file cache; empty for no cache
 * - `cache_size`: unlimited, or a size such as 200GiB
 * - `cache_validate`: always, never, or an age such as 10m
 *
 * Has to hold: `key` and `value` are NULL or texts.
 */
int ringload_loader_set(struct RingloadLoader *loader, const char *key, const char *value);

/**
 * Frees a loader. Its streams go on. NULL and freed ones are ignored.
 */
void ringload_loader_free(struct RingloadLoader *loader);

/**
 * Begins to load the checkpoint at `location`: a file, an index, a directory, a pattern, or a URI.
 *
 * Has to hold: `location` is NULL or a text, `stream` NULL or a place for a pointer.
 */
int ringload_stream_open(struct RingloadLoader *loader,
                         const char *location,
                         struct RingloadStream **stream);

/**
 * Waits for the next tensor; RINGLOAD_STATUS_END when there are no more. The tensor is yours until you
 * release it. After an error the stream ends.
 *
 * Has to hold: `tensor` is NULL or a place for a tensor.
 */
int ringload_stream_next(struct RingloadStream *stream,
                         struct RingloadTensor *tensor);

/**
 * How many bytes of tensors were given out, and how many there are in all.
 *
 * Has to hold: `done_bytes` and `total_bytes` are NULL or places for numbers.
 */
int ringload_stream_progress(struct RingloadStream *stream,
                             uint64_t *done_bytes,
                             uint64_t *total_bytes);

/**
 * Frees a stream, and stops its load if that is not done. Its tensors stay. NULL and freed ones are
 * ignored.
 */
void ringload_stream_free(struct RingloadStream *stream);

/**
 * Gives a tensor back: what it points to is gone. NULL and released ones are ignored.
 *
 * Has to hold: `tensor` is NULL, or was filled by ringload_stream_next.
 */
void ringload_tensor_release(struct RingloadTensor *tensor);

/**
 * Copies a tensor to host memory, wherever it is; `len_bytes` has to be its own.
 *
 * Has to hold: `tensor` is NULL, or was filled by ringload_stream_next; `into` has `len_bytes` bytes.
 */
int ringload_tensor_copy(const struct RingloadTensor *tensor, void *into, uint64_t len_bytes);

/**
 * Reads ranges of files and objects into memory of the caller; returns when nothing is in flight any
 * more. With a `callback`, that is called on this thread with each range that is there.
 *
 * After an error, or when the callback stopped it, ranges that it was not called with hold anything.
 * Memory whose address is congruent to the offset modulo 4096 is read into directly.
 *
 * Has to hold: `ranges` has `count` ranges; their memory is there, and nobody else uses it during the call; `callback`
 * is NULL or may be called with `user_data`.
 */
int ringload_read(struct RingloadLoader *loader,
                  const struct RingloadRange *ranges,
                  size_t count,
                  RingloadRangeCallback callback,
                  void *user_data);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RINGLOAD_H */
