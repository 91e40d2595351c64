// The C interface: no exception leaves it.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>

#include "cores.h"
#include "cpu.h"
#include "deadline.h"
#include "error.h"
#include "lavolta.h"
#include "model.h"
#include "peak.h"
#include "session.h"

struct lavolta_model {
    // Shared with a call of a session that is under way; sessions only watch it.
    std::shared_ptr<lavolta::Model> shared;
    lavolta::Model& model;

    template <class... Args>
    explicit lavolta_model(Args&&... args)
        : shared(std::make_shared<lavolta::Model>(std::forward<Args>(args)...)), model(*shared) {}
};

struct lavolta_session {
    lavolta::Session session;
};

namespace {

thread_local std::string last_error;

template <class Body>
lavolta_status guarded(const Body& body) noexcept {
    try {
        try {
            body();
            return LAVOLTA_OK;
        } catch (const lavolta::Error& error) {
            last_error = error.message;
            return error.status;
        } catch (const std::bad_alloc&) {
            last_error = "there is not enough memory; use shorter or fewer sequences.";
            return LAVOLTA_OUT_OF_MEMORY;
        } catch (const std::system_error& error) {
            last_error = std::string("the system refused: ") + error.what() + ".";
            return LAVOLTA_INTERNAL;
        } catch (const std::exception& error) {
            last_error = std::string("unexpected: ") + error.what() + ".";
            return LAVOLTA_INTERNAL;
        }
    } catch (...) {
        // Even the sentence found no memory.
        return LAVOLTA_OUT_OF_MEMORY;
    }
}

void require(bool condition, const char* message) {
    if (!condition) lavolta::fail(LAVOLTA_INVALID_ARGUMENT, message);
}

char* copy_of(const std::string& text) {
    auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
    if (!copy) throw std::bad_alloc();
    std::memcpy(copy, text.c_str(), text.size() + 1);
    return copy;
}

lavolta_options options_or_default(const lavolta_options* options) {
    const lavolta_options given = options ? *options : lavolta_options{};
    require(given.cores || given.core_count == 0, "cores must not be NULL where core_count is not 0.");
    require(given.core_count <= 4096, "core_count is above 4096; name each core once.");
    return given;
}

}  // namespace

lavolta_status lavolta_open(const char* path, const lavolta_options* options, lavolta_model** model) {
    return guarded([&] {
        require(path && model, "path and model must not be NULL.");
        auto file = std::make_unique<lavolta::MappedFile>(path);
        const uint8_t* data = file->data();
        const size_t bytes = file->bytes();
        *model = new lavolta_model(std::move(file), data, bytes, options_or_default(options));
    });
}

lavolta_status lavolta_open_memory(const void* data, size_t bytes, const lavolta_options* options, lavolta_model** model) {
    return guarded([&] {
        require((data || bytes == 0) && model, "data and model must not be NULL.");
        *model = new lavolta_model(nullptr, static_cast<const uint8_t*>(data), bytes, options_or_default(options));
    });
}

const char* lavolta_describe(const lavolta_model* model) { return model ? model->model.bundle().manifest.c_str() : ""; }

uint32_t lavolta_level_count(const lavolta_model* model) {
    return model ? static_cast<uint32_t>(model->model.bundle().levels.size()) : 0;
}

uint32_t lavolta_level(const lavolta_model* model) { return model ? model->model.level() : 0; }

uint32_t lavolta_layer_count(const lavolta_model* model) {
    return model ? static_cast<uint32_t>(model->model.bundle().layers.size()) : 0;
}

lavolta_status lavolta_switch(lavolta_model* model, uint32_t level) {
    return guarded([&] {
        require(model, "model must not be NULL.");
        model->model.switch_level(level);
    });
}

lavolta_status lavolta_output_shape(const lavolta_model* model, const lavolta_batch* batch, size_t* rows, size_t* columns) {
    return guarded([&] {
        require(model && batch && rows && columns && (batch->lengths || batch->sequences == 0), "no argument may be NULL.");
        model->model.output_shape(*batch, *rows, *columns);
    });
}

lavolta_status lavolta_run(lavolta_model* model, const lavolta_batch* batch, float* output, size_t output_floats) {
    return guarded([&] {
        require(model && batch, "model and batch must not be NULL.");
        model->model.run(*batch, output, output_floats);
    });
}

lavolta_status lavolta_calibrate(lavolta_model* model, const lavolta_calibration* options) {
    return guarded([&] {
        require(model, "model must not be NULL.");
        const lavolta_calibration given = options ? *options : lavolta_calibration{};
        require(given.tokens || given.token_counts == 0, "tokens must not be NULL.");
        if (given.repetitions > 1000) {
            lavolta::fail(LAVOLTA_INVALID_ARGUMENT,
                          "repetitions is " + std::to_string(given.repetitions) + "; choose 1 to 1000.");
        }
        model->model.set_plan(lavolta::calibrate(model->model, given));
    });
}

char* lavolta_plan(lavolta_model* model) {
    char* text = nullptr;
    guarded([&] {
        require(model, "model must not be NULL.");
        const std::shared_ptr<const lavolta::Plan> plan = model->model.plan();
        if (plan) text = copy_of(plan->json());
    });
    return text;
}

lavolta_status lavolta_set_plan(lavolta_model* model, const char* json, size_t bytes) {
    return guarded([&] {
        require(model && json, "model and json must not be NULL.");
        model->model.set_plan(lavolta::parse_plan({json, bytes}));
    });
}

lavolta_status lavolta_run_within(lavolta_model* model, const lavolta_batch* batch, const lavolta_deadline* deadline,
                                  float* output, size_t output_floats, uint32_t* levels, lavolta_timing* timing) {
    return guarded([&] {
        require(model && batch && deadline && timing, "model, batch, deadline and timing must not be NULL.");
        std::vector<uint32_t> unread;
        if (!levels) {
            const uint64_t entries = uint64_t{batch->sequences} * lavolta_layer_count(model);
            if (entries > SIZE_MAX / sizeof(uint32_t)) throw std::bad_alloc();
            unread.resize(static_cast<size_t>(entries));
            levels = unread.data();
        }
        lavolta::run_within(model->model, *batch, *deadline, output, output_floats, levels, *timing);
    });
}

lavolta_status lavolta_cancel(lavolta_model* model) {
    return guarded([&] {
        require(model, "model must not be NULL.");
        model->model.cancel();
    });
}

lavolta_status lavolta_session_open(lavolta_model* model, size_t max_tokens, lavolta_session** session) {
    return guarded([&] {
        require(model && session, "model and session must not be NULL.");
        *session = new lavolta_session{{model->shared, max_tokens}};
    });
}

lavolta_status lavolta_session_append(lavolta_session* session, const int32_t* token_ids, size_t count, float* logits,
                                      size_t logits_floats) {
    return guarded([&] {
        require(session, "session must not be NULL.");
        session->session.model()->append(session->session, token_ids, count, logits, logits_floats);
    });
}

lavolta_status lavolta_session_length(const lavolta_session* session, size_t* tokens) {
    return guarded([&] {
        require(session && tokens, "session and tokens must not be NULL.");
        *tokens = session->session.model()->length(session->session);
    });
}

lavolta_status lavolta_session_truncate(lavolta_session* session, size_t tokens) {
    return guarded([&] {
        require(session, "session must not be NULL.");
        session->session.model()->truncate(session->session, tokens);
    });
}

lavolta_status lavolta_session_reset(lavolta_session* session) { return lavolta_session_truncate(session, 0); }

void lavolta_session_close(lavolta_session* session) { delete session; }

lavolta_status lavolta_blob(const lavolta_model* model, const char* name, const uint8_t** data, size_t* bytes) {
    return guarded([&] {
        require(model && name && data && bytes, "no argument may be NULL.");
        const bool tokenizer = std::strcmp(name, "tokenizer") == 0;
        require(tokenizer || std::strcmp(name, "vocab") == 0, "the name of a blob is 'tokenizer' or 'vocab'.");
        const lavolta::Bundle& bundle = model->model.bundle();
        const lavolta::Blob& blob = tokenizer ? bundle.tokenizer : bundle.vocab;
        *data = blob.data;
        *bytes = blob.bytes;
    });
}

lavolta_status lavolta_profile(lavolta_model* model, int enabled) {
    return guarded([&] {
        require(model, "model must not be NULL.");
        model->model.profile(enabled != 0);
    });
}

char* lavolta_explain(lavolta_model* model) {
    char* text = nullptr;
    guarded([&] {
        require(model, "model must not be NULL.");
        text = copy_of(model->model.explain());
    });
    return text;
}

void lavolta_free(char* text) { std::free(text); }

void lavolta_close(lavolta_model* model) {
    // The caller may free the memory of `lavolta_open_memory` next, and a call of a session would still read it.
    if (model) model->model.close();
    delete model;
}

const char* lavolta_last_error(void) { return last_error.c_str(); }

const char* lavolta_status_name(lavolta_status status) {
    switch (status) {
        case LAVOLTA_OK:
            return "ok";
        case LAVOLTA_NOT_A_BUNDLE:
            return "not-a-bundle";
        case LAVOLTA_TRUNCATED:
            return "truncated";
        case LAVOLTA_HEADER_TOO_LARGE:
            return "header-too-large";
        case LAVOLTA_HEADER_NOT_JSON:
            return "header-not-json";
        case LAVOLTA_MANIFEST_MISSING:
            return "manifest-missing";
        case LAVOLTA_MANIFEST_INVALID:
            return "manifest-invalid";
        case LAVOLTA_VERSION_UNSUPPORTED:
            return "version-unsupported";
        case LAVOLTA_TENSOR_MISSING:
            return "tensor-missing";
        case LAVOLTA_TENSOR_SHAPE:
            return "tensor-shape";
        case LAVOLTA_TENSOR_DTYPE:
            return "tensor-dtype";
        case LAVOLTA_OFFSETS_INVALID:
            return "offsets-invalid";
        case LAVOLTA_INDEX_OUT_OF_RANGE:
            return "index-out-of-range";
        case LAVOLTA_NOT_FINITE:
            return "not-finite";
        case LAVOLTA_VALUE_OUT_OF_RANGE:
            return "value-out-of-range";
        case LAVOLTA_IO:
            return "io";
        case LAVOLTA_INVALID_ARGUMENT:
            return "invalid-argument";
        case LAVOLTA_NO_SUCH_LEVEL:
            return "no-such-level";
        case LAVOLTA_TOKEN_OUT_OF_RANGE:
            return "token-out-of-range";
        case LAVOLTA_TOO_LONG:
            return "too-long";
        case LAVOLTA_EMPTY_INPUT:
            return "empty-input";
        case LAVOLTA_OUTPUT_TOO_SMALL:
            return "output-too-small";
        case LAVOLTA_OUT_OF_MEMORY:
            return "out-of-memory";
        case LAVOLTA_INTERNAL:
            return "internal";
        case LAVOLTA_CANCELLED:
            return "cancelled";
        case LAVOLTA_NO_PLAN:
            return "no-plan";
        case LAVOLTA_PLAN_INVALID:
            return "plan-invalid";
        case LAVOLTA_NOT_CAUSAL:
            return "not-causal";
        case LAVOLTA_CACHE_FULL:
            return "cache-full";
        case LAVOLTA_MODEL_CLOSED:
            return "model-closed";
    }
    return "unknown";
}

lavolta_status lavolta_peak(const char* isa, double* gflops) {
    return guarded([&] {
        require(gflops, "gflops must not be NULL.");
        *gflops = lavolta::measured_peak_gflops(lavolta::isa_option(isa));
    });
}

char* lavolta_cores(const char* folder, uint32_t threads) {
    char* text = nullptr;
    guarded([&] { text = copy_of(lavolta::describe_cores(folder ? folder : lavolta::kCoreFolder, threads)); });
    return text;
}

const char* lavolta_isas(void) {
    static const std::string names = [] {
        std::string text;
        for (int i = 0; i < lavolta::kIsaCount; ++i) {
            const auto isa = static_cast<lavolta::Isa>(i);
            if (lavolta::cpu_has(isa)) text += (text.empty() ? "" : " ") + std::string(lavolta::isa_name(isa));
        }
        return text;
    }();
    return names.c_str();
}
