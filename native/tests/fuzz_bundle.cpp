// Fuzz target of the bundle reader, in libFuzzer's form: whatever opens must also run at every level.
// With clang: clang++ -std=c++17 -g -O1 -fsanitize=fuzzer,address,undefined -Inative/include -Inative/kernels -Inative/runtime
//             native/tests/fuzz_bundle.cpp native/runtime/*.cpp native/kernels/*.cpp native/kernels/*/reference.cpp
// Without it, mutate_bundle.cpp calls this function with its own mutations.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "lavolta.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    lavolta_model* model = nullptr;
    if (lavolta_open_memory(data, size, nullptr, &model) != LAVOLTA_OK) {
        // A refusal has a sentence and leaves no model.
        if (model || !*lavolta_last_error()) std::abort();
        return 0;
    }
    const int32_t ids[] = {0, 0, 0};
    const uint32_t lengths[] = {1, 2};
    for (uint32_t level = 0; level < lavolta_level_count(model); ++level) {
        if (lavolta_switch(model, level) != LAVOLTA_OK) std::abort();
        for (int per_token = 0; per_token < 2; ++per_token) {
            const lavolta_batch batch{ids, nullptr, lengths, 2, per_token};
            size_t rows = 0, columns = 0;
            if (lavolta_output_shape(model, &batch, &rows, &columns) != LAVOLTA_OK) std::abort();
            std::vector<float> output(rows * columns);
            lavolta_run(model, &batch, output.data(), output.size());
        }
    }
    const uint32_t one = 1;
    const lavolta_calibration calibration{&one, 1, 1, [](void*) -> uint64_t { return 0; }, nullptr};
    if (lavolta_calibrate(model, &calibration) == LAVOLTA_OK) {
        const lavolta_batch batch{ids, nullptr, lengths, 1, 0};
        const lavolta_deadline deadline{0.0, nullptr, nullptr};
        size_t rows = 0, columns = 0;
        lavolta_timing timing;
        if (lavolta_output_shape(model, &batch, &rows, &columns) != LAVOLTA_OK) std::abort();
        std::vector<float> output(rows * columns);
        if (lavolta_run_within(model, &batch, &deadline, output.data(), output.size(), nullptr, &timing) != LAVOLTA_OK) {
            std::abort();
        }
    }
    lavolta_free(lavolta_explain(model));
    lavolta_session* session = nullptr;
    if (lavolta_session_open(model, 0, &session) == LAVOLTA_OK) {
        const lavolta_batch batch{ids, nullptr, lengths, 1, 0};
        size_t rows = 0, columns = 0;
        if (lavolta_output_shape(model, &batch, &rows, &columns) != LAVOLTA_OK) std::abort();
        std::vector<float> logits(columns);
        lavolta_session_append(session, ids, 2, logits.data(), logits.size());
        lavolta_session_append(session, ids, 1, logits.data(), logits.size());
        if (lavolta_session_reset(session) != LAVOLTA_OK) std::abort();
        lavolta_session_append(session, ids, 1, nullptr, 0);
    }
    lavolta_close(model);
    // A session outlives its model and knows it.
    if (session && lavolta_session_append(session, ids, 1, nullptr, 0) != LAVOLTA_MODEL_CLOSED) std::abort();
    lavolta_session_close(session);
    return 0;
}
