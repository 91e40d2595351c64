/* La Volta: one resident Transformer with a dial. The C interface of the engine.
 *
 * Threads. Every function may be called from any thread. Runs of one model are executed one after another (a second caller
 * waits); `lavolta_switch`, `lavolta_cancel`, `lavolta_level` and `lavolta_describe` never wait for a run. A run uses, from its
 * first layer to its last, the level that was set when it began. Nothing but calls of its sessions may use a model while or
 * after `lavolta_close` is called on it.
 *
 * Errors. Functions that can fail return a status; `lavolta_last_error` has the sentence for the calling thread. No function
 * throws, aborts or writes a part of its output before it has checked its arguments.
 */
#ifndef LAVOLTA_H
#define LAVOLTA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LAVOLTA_API __attribute__((visibility("default")))
#else
#define LAVOLTA_API
#endif

typedef enum lavolta_status {
    LAVOLTA_OK = 0,
    /* Defects of a bundle; the names are those of the Python reader. */
    LAVOLTA_NOT_A_BUNDLE = 1,
    LAVOLTA_TRUNCATED = 2,
    LAVOLTA_HEADER_TOO_LARGE = 3,
    LAVOLTA_HEADER_NOT_JSON = 4,
    LAVOLTA_MANIFEST_MISSING = 5,
    LAVOLTA_MANIFEST_INVALID = 6,
    LAVOLTA_VERSION_UNSUPPORTED = 7,
    LAVOLTA_TENSOR_MISSING = 8,
    LAVOLTA_TENSOR_SHAPE = 9,
    LAVOLTA_TENSOR_DTYPE = 10,
    LAVOLTA_OFFSETS_INVALID = 11,
    LAVOLTA_INDEX_OUT_OF_RANGE = 12,
    LAVOLTA_NOT_FINITE = 13,
    LAVOLTA_IO = 14,
    LAVOLTA_VALUE_OUT_OF_RANGE = 15,
    /* Defects of a call. */
    LAVOLTA_INVALID_ARGUMENT = 32,
    LAVOLTA_NO_SUCH_LEVEL = 33,
    LAVOLTA_TOKEN_OUT_OF_RANGE = 34,
    LAVOLTA_TOO_LONG = 35,
    LAVOLTA_EMPTY_INPUT = 36,
    LAVOLTA_OUTPUT_TOO_SMALL = 37,
    LAVOLTA_OUT_OF_MEMORY = 38,
    LAVOLTA_INTERNAL = 39,
    LAVOLTA_CANCELLED = 40,
    LAVOLTA_NO_PLAN = 41,
    LAVOLTA_PLAN_INVALID = 42,
    /* Of sessions. */
    LAVOLTA_NOT_CAUSAL = 48,
    LAVOLTA_CACHE_FULL = 49,
    LAVOLTA_MODEL_CLOSED = 50
} lavolta_status;

typedef struct lavolta_model lavolta_model;
typedef struct lavolta_session lavolta_session;

/* Zero means the default of every field. */
typedef struct lavolta_options {
    uint32_t threads; /* threads of a run, the caller's included; 0 and 1: only the caller's; at most 256 */
    uint32_t spin_us; /* how long an idle worker spins before it blocks; 0: it blocks at once. While a run goes on, workers
                         wait up to 50 microseconds for its next step, whatever is given here */
    const char *isa;  /* the best kernels allowed: "reference"; "avx2", "avx_vnni", "avx512", "avx512_vnni"; "neon", "dotprod",
                         "i8mm". NULL: all the CPU has.
                         The environment variable LAVOLTA_ISA is the default for NULL. */
    const uint32_t *cores; /* (core_count) a run's threads, the caller's included, stay on these cores until it ends; NULL: on a
                              computer with unequal cores the fastest ones, else anywhere */
    size_t core_count;
} lavolta_options;

typedef struct lavolta_batch {
    const int32_t *token_ids; /* (sum of lengths), the sequences one after another */
    const int32_t *type_ids;  /* the same, or NULL: all 0 */
    const uint32_t *lengths;  /* (sequences), each 1 to max_tokens */
    size_t sequences;
    int per_token; /* not 0: the last hidden state of every token, without pooling and head */
} lavolta_batch;

/* Nanoseconds from any beginning. One that goes backwards counts as standing still. */
typedef uint64_t (*lavolta_clock)(void *user);

typedef struct lavolta_deadline {
    double deadline_ms;  /* from the call to the last number of the output; 0 or less: late already; infinity: no deadline */
    lavolta_clock clock; /* NULL: the system's monotonic clock. Called in the caller's thread: at the beginning, before each
                            layer, after the last and at the end; it may cancel the model, but not run it */
    void *user;          /* what `clock` gets */
} lavolta_deadline;

typedef struct lavolta_timing {
    double elapsed_ms; /* by the clock, from the call (so with the wait for other runs) to the last number of the output */
    int met;           /* not 0: elapsed_ms is at most deadline_ms */
} lavolta_timing;

/* Zero means the default of every field. */
typedef struct lavolta_calibration {
    const uint32_t *tokens; /* (token_counts) lengths of sequences to measure, each 1 to max_tokens; NULL: 8 to 256 */
    size_t token_counts;
    uint32_t repetitions; /* at most 1000; 0: 5 */
    lavolta_clock clock;  /* NULL: the system's monotonic clock */
    void *user;
} lavolta_calibration;

/* Open a bundle. `options` may be NULL. On success `*model` is to be closed with `lavolta_close`. */
LAVOLTA_API lavolta_status lavolta_open(const char *path, const lavolta_options *options, lavolta_model **model);

/* The same from memory that stays unchanged until `lavolta_close`. */
LAVOLTA_API lavolta_status lavolta_open_memory(const void *data, size_t bytes, const lavolta_options *options,
                                               lavolta_model **model);

/* The manifest, JSON, valid until `lavolta_close`. */
LAVOLTA_API const char *lavolta_describe(const lavolta_model *model);

LAVOLTA_API uint32_t lavolta_level_count(const lavolta_model *model);
LAVOLTA_API uint32_t lavolta_level(const lavolta_model *model);
LAVOLTA_API uint32_t lavolta_layer_count(const lavolta_model *model);

/* Turn the dial: one store, no weight moves. The next run uses the level. */
LAVOLTA_API lavolta_status lavolta_switch(lavolta_model *model, uint32_t level);

/* Rows and columns of what `lavolta_run` writes for a batch: one row per sequence, or per token where the model has no
 * pooling or `per_token` is set. */
LAVOLTA_API lavolta_status lavolta_output_shape(const lavolta_model *model, const lavolta_batch *batch, size_t *rows,
                                                size_t *columns);

/* Run a batch at the present level. `output (rows, columns)` row-major, `output_floats` its size. */
LAVOLTA_API lavolta_status lavolta_run(lavolta_model *model, const lavolta_batch *batch, float *output,
                                       size_t output_floats);

/* Measure what every layer costs at every level, here and now, for runs with a deadline; `options` may be NULL. Takes a few
 * dozen runs per level. Other threads may run the model meanwhile, but disturb the measurement. */
LAVOLTA_API lavolta_status lavolta_calibrate(lavolta_model *model, const lavolta_calibration *options);

/* The plan that calibration made, JSON, to keep for the next process; free it with `lavolta_free`. NULL without a plan. */
LAVOLTA_API char *lavolta_plan(lavolta_model *model);

/* Take a kept plan. It is refused where it was made for another bundle, instruction set or thread count. */
LAVOLTA_API lavolta_status lavolta_set_plan(lavolta_model *model, const char *json, size_t bytes);

/* Run a batch within a deadline. Before each layer the clock is compared with the plan, and the remaining layers get the densest
 * levels that still arrive in time: never denser than the level that is set, and the sparsest when none arrives. Layers that take
 * longer than planned slow the plan of the rest, up to eight times. The result has the bits that each layer gives at its level.
 *
 * `levels` (sequences, layers) may be NULL: the level of each layer, written just before the layer runs. */
LAVOLTA_API lavolta_status lavolta_run_within(lavolta_model *model, const lavolta_batch *batch,
                                              const lavolta_deadline *deadline, float *output, size_t output_floats,
                                              uint32_t *levels, lavolta_timing *timing);

/* End the runs of this model that have begun or wait, before their next layer: they return LAVOLTA_CANCELLED and fill their
 * output with NaN. Later runs are not concerned; without a run nothing happens. */
LAVOLTA_API lavolta_status lavolta_cancel(lavolta_model *model);

/* A session: one sequence that grows, of a causal language model. It keeps the keys and values of its tokens, so that a new token
 * costs one token's work. A model may have any number of sessions; their calls queue with its runs. `max_tokens` is the room,
 * 0 for the model's limit; memory is taken as tokens come. After `lavolta_close` of the model every call but
 * `lavolta_session_close` returns LAVOLTA_MODEL_CLOSED. */
LAVOLTA_API lavolta_status lavolta_session_open(lavolta_model *model, size_t max_tokens, lavolta_session **session);

/* Tokens behind those that the session has, at the present level (those before keep the keys and values of theirs).
 * `logits (columns)` of the last token, `logits_floats` its size, columns as of `lavolta_output_shape`; NULL to skip the output
 * layer. On failure the session is as it was before the call. */
LAVOLTA_API lavolta_status lavolta_session_append(lavolta_session *session, const int32_t *token_ids, size_t count,
                                                  float *logits, size_t logits_floats);

/* How many tokens the session has. */
LAVOLTA_API lavolta_status lavolta_session_length(const lavolta_session *session, size_t *tokens);

/* Forget all but the first `tokens` tokens. */
LAVOLTA_API lavolta_status lavolta_session_truncate(lavolta_session *session, size_t tokens);

/* Forget all tokens. */
LAVOLTA_API lavolta_status lavolta_session_reset(lavolta_session *session);

/* NULL is allowed; also after the model was closed. */
LAVOLTA_API void lavolta_session_close(lavolta_session *session);

/* A uint8 tensor of the bundle, "tokenizer" or "vocab"; `*data` is NULL where it is absent. Valid until `lavolta_close`. */
LAVOLTA_API lavolta_status lavolta_blob(const lavolta_model *model, const char *name, const uint8_t **data, size_t *bytes);

/* Measure every step of the following runs (not 0) or stop measuring (0). Measured times appear in `lavolta_explain`. */
LAVOLTA_API lavolta_status lavolta_profile(lavolta_model *model, int enabled);

/* What runs: a JSON array with one object per level and step. Free it with `lavolta_free`. NULL on failure. */
LAVOLTA_API char *lavolta_explain(lavolta_model *model);
LAVOLTA_API void lavolta_free(char *text);

/* NULL is allowed. Waits for the call of a session that is under way; when it returns, nothing reads the bundle any more. */
LAVOLTA_API void lavolta_close(lavolta_model *model);

/* The sentence of the last failure in this thread, "" when there was none; valid until the thread's next failing call. */
LAVOLTA_API const char *lavolta_last_error(void);

/* The stable name of a status, such as "truncated". */
LAVOLTA_API const char *lavolta_status_name(lavolta_status status);

/* The cores of this computer, JSON: {"cores": [{"core", "capacity", "max_khz", "cluster"}], "fast": [...]}. `folder` is laid out
 * like /sys/devices/system/cpu, which NULL means; `capacity` and `max_khz` are null where the system does not tell; `fast` are
 * the cores that a run of `threads` threads would keep to. Free it with `lavolta_free`. NULL on failure. */
LAVOLTA_API char *lavolta_cores(const char *folder, uint32_t threads);

/* Instruction sets that this CPU runs and this build has, best last, such as "reference avx2 avx512" or "reference neon". */
LAVOLTA_API const char *lavolta_isas(void);

/* The most fp32 operations (a multiply-add is two) that one thread of this machine does in a nanosecond, measured in 30 ms:
 * what a share of the peak refers to. `isa` as in `lavolta_options`. */
LAVOLTA_API lavolta_status lavolta_peak(const char *isa, double *gflops);

#ifdef __cplusplus
}
#endif
#endif
