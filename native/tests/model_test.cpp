// model_test BUNDLE ROUNDS SEED: whole runs at random levels from several threads, while others switch, cancel, calibrate, explain
// and read plans; to be built with the thread and with the address sanitizer. Every answer must be, bit by bit, that of one level.
// Before them: sizes that no machine can address, and sessions whose model is closed under them.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "lavolta.h"
#include "model.h"

namespace {

#define EXPECT(condition)                                                                              \
    do {                                                                                               \
        if (!(condition)) {                                                                            \
            std::printf("%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, lavolta_last_error());     \
            std::exit(1);                                                                              \
        }                                                                                              \
    } while (0)

using Random = std::mt19937;

struct Batch {
    std::vector<int32_t> ids;
    std::vector<uint32_t> lengths;
    std::vector<std::vector<float>> answers;  // (levels)
    size_t floats = 0;

    lavolta_batch view() const { return {ids.data(), nullptr, lengths.data(), lengths.size(), 0}; }
};

struct Test {
    lavolta_model* model;
    uint32_t levels, layers;
    std::vector<Batch> batches;
    std::string plan;
    size_t rounds;

    uint32_t any_level(Random& random) const { return static_cast<uint32_t>(random() % levels); }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void expect_cancelled(const std::vector<float>& output) {
    EXPECT(std::all_of(output.begin(), output.end(), [](float x) { return std::isnan(x); }));
}

void run_at_any_level(const Test& test, Random random) {
    for (size_t round = 0; round < test.rounds; ++round) {
        const Batch& batch = test.batches[random() % test.batches.size()];
        const lavolta_batch view = batch.view();
        std::vector<float> output(batch.floats);
        EXPECT(lavolta_switch(test.model, test.any_level(random)) == LAVOLTA_OK);
        const lavolta_status status = lavolta_run(test.model, &view, output.data(), output.size());
        if (status == LAVOLTA_CANCELLED) {
            expect_cancelled(output);
            continue;
        }
        EXPECT(status == LAVOLTA_OK);
        EXPECT(std::any_of(batch.answers.begin(), batch.answers.end(), [&](const auto& answer) { return same(answer, output); }));
    }
}

void run_within_deadlines(const Test& test, Random random) {
    for (size_t round = 0; round < test.rounds; ++round) {
        const Batch& batch = test.batches[random() % test.batches.size()];
        const lavolta_batch view = batch.view();
        std::vector<float> output(batch.floats);
        std::vector<uint32_t> cuts(batch.lengths.size() * test.layers);
        // A clock of this thread alone, which jumps forwards and backwards.
        struct Jumps {
            Random* random;
            uint64_t now = 0;
        } jumps{&random};
        const auto clock = [](void* user) -> uint64_t {
            Jumps* self = static_cast<Jumps*>(user);
            return self->now += (*self->random)() % 200000 - 20000;
        };
        const lavolta_deadline deadline{static_cast<double>(random() % 1000) / 1000.0, clock, &jumps};
        lavolta_timing timing;
        const lavolta_status status =
            lavolta_run_within(test.model, &view, &deadline, output.data(), output.size(), cuts.data(), &timing);
        if (status == LAVOLTA_CANCELLED) {
            expect_cancelled(output);
            continue;
        }
        EXPECT(status == LAVOLTA_OK);
        EXPECT((timing.elapsed_ms <= deadline.deadline_ms) == (timing.met != 0));
        EXPECT(*std::max_element(cuts.begin(), cuts.end()) < test.levels);
        if (std::all_of(cuts.begin(), cuts.end(), [&](uint32_t level) { return level == cuts[0]; })) {
            EXPECT(same(batch.answers[cuts[0]], output));
        }
    }
}

void grow_sessions(const Test& test, Random random) {
    for (size_t round = 0; round < test.rounds / 4 + 1; ++round) {
        lavolta_session* session = nullptr;
        const lavolta_status opened = lavolta_session_open(test.model, 8, &session);
        if (opened == LAVOLTA_NOT_CAUSAL) return;
        EXPECT(opened == LAVOLTA_OK);
        std::vector<float> logits(test.batches[0].floats);
        for (size_t call = 0; call < 6; ++call) {
            const int32_t ids[] = {0, 1, 2};
            size_t before = 0, after = 0;
            EXPECT(lavolta_session_length(session, &before) == LAVOLTA_OK);
            const size_t count = 1 + random() % 3;
            const lavolta_status status = lavolta_session_append(session, ids, count, logits.data(), logits.size());
            EXPECT(status == LAVOLTA_OK || status == LAVOLTA_CANCELLED || status == LAVOLTA_CACHE_FULL);
            EXPECT(lavolta_session_length(session, &after) == LAVOLTA_OK);
            EXPECT(after == (status == LAVOLTA_OK ? before + count : before));
            if (status == LAVOLTA_CACHE_FULL) EXPECT(lavolta_session_truncate(session, random() % (before + 1)) == LAVOLTA_OK);
        }
        lavolta_session_close(session);
    }
}

void switch_levels(const Test& test, Random random) {
    for (size_t round = 0; round < 200 * test.rounds; ++round) {
        EXPECT(lavolta_switch(test.model, test.any_level(random)) == LAVOLTA_OK);
        EXPECT(lavolta_level(test.model) < test.levels);
        EXPECT(lavolta_switch(test.model, test.levels) == LAVOLTA_NO_SUCH_LEVEL);
    }
}

// Other threads' runs end, never with anything else than the named status.
void cancel_and_look(const Test& test, Random random) {
    for (size_t round = 0; round < test.rounds; ++round) {
        if (random() % 3 == 0) EXPECT(lavolta_cancel(test.model) == LAVOLTA_OK);
        EXPECT(lavolta_profile(test.model, random() % 2) == LAVOLTA_OK);
        char* rows = lavolta_explain(test.model);
        EXPECT(rows && rows[0] == '[');
        lavolta_free(rows);
        EXPECT(std::strlen(lavolta_describe(test.model)) > 2);
    }
}

// A plan with a byte or a digit changed is taken or refused; whichever is in force, runs keep working.
void change_plans(const Test& test, Random random) {
    for (size_t round = 0; round < 4 * test.rounds; ++round) {
        std::string text = test.plan;
        for (size_t i = random() % 4; i > 0; --i) {
            const size_t at = random() % text.size();
            text[at] = static_cast<char>(random() % 3 ? '0' + random() % 10 : random() % 256);
        }
        const lavolta_status status = lavolta_set_plan(test.model, text.data(), text.size());
        EXPECT(status == LAVOLTA_OK || status == LAVOLTA_PLAN_INVALID);
        char* kept = lavolta_plan(test.model);
        EXPECT(kept);
        lavolta_free(kept);
    }
}

void calibrate_once(const Test& test, Random) {
    const uint32_t tokens[] = {1, 2};
    const lavolta_calibration options{tokens, 2, 1, nullptr, nullptr};
    const lavolta_status status = lavolta_calibrate(test.model, &options);
    EXPECT(status == LAVOLTA_OK || status == LAVOLTA_CANCELLED);
}

// A size in bytes that wraps would give a small buffer for a large one.
void refuse_unaddressable_sizes() {
    lavolta::Buffer buffer;
    const uint64_t most = SIZE_MAX / sizeof(float);
    for (const uint64_t floats : {most, most + 1, uint64_t{SIZE_MAX}, uint64_t{UINT64_MAX}}) {
        bool refused = false;
        try {
            buffer.reserve(floats);
        } catch (const std::bad_alloc&) {
            refused = true;
        }
        EXPECT(refused);
    }
    EXPECT(buffer.reserve(1)[0] == 0.0f);
}

// The memory of a bundle is the caller's again when `lavolta_close` returns: a call of a session in another thread gives the right
// numbers or says that the model is closed.
void close_under_sessions(const char* path, Random& random) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bundle{std::istreambuf_iterator<char>(file), {}};
    std::vector<float> expected;
    for (size_t round = 0; round < 40; ++round) {
        std::vector<char> memory = bundle;
        lavolta_model* model = nullptr;
        EXPECT(lavolta_open_memory(memory.data(), memory.size(), nullptr, &model) == LAVOLTA_OK);
        lavolta_session* session = nullptr;
        const lavolta_status opened = lavolta_session_open(model, 0, &session);
        if (opened == LAVOLTA_NOT_CAUSAL) return lavolta_close(model);
        EXPECT(opened == LAVOLTA_OK);
        const std::vector<int32_t> ids(100, 1);
        const uint32_t length = static_cast<uint32_t>(ids.size());
        const lavolta_batch batch{ids.data(), nullptr, &length, 1, 0};
        size_t rows = 0, columns = 0;
        EXPECT(lavolta_output_shape(model, &batch, &rows, &columns) == LAVOLTA_OK);
        std::vector<float> logits(columns);
        EXPECT(lavolta_session_append(session, ids.data(), ids.size(), logits.data(), columns) == LAVOLTA_OK);
        if (expected.empty()) expected = logits;
        std::atomic<uint32_t> calls{0};
        std::thread user([&] {
            while (true) {
                if (lavolta_session_reset(session) == LAVOLTA_MODEL_CLOSED) break;
                const lavolta_status status = lavolta_session_append(session, ids.data(), ids.size(), logits.data(), columns);
                ++calls;
                if (status == LAVOLTA_MODEL_CLOSED) break;
                EXPECT(status == LAVOLTA_OK);
                EXPECT(same(expected, logits));
            }
        });
        for (const uint32_t wanted = 1 + static_cast<uint32_t>(random() % 3); calls < wanted;) std::this_thread::yield();
        lavolta_close(model);
        std::fill(memory.begin(), memory.end(), '\xff');
        user.join();
        size_t tokens = 0;
        EXPECT(lavolta_session_length(session, &tokens) == LAVOLTA_MODEL_CLOSED);
        lavolta_session_close(session);
    }
}

Test prepare(const char* path, uint32_t threads, size_t rounds, Random& random) {
    Test test{};
    lavolta_options options{};
    options.threads = threads;
    options.spin_us = random() % 2 ? 20 : 0;
    EXPECT(lavolta_open(path, &options, &test.model) == LAVOLTA_OK);
    test.levels = lavolta_level_count(test.model);
    test.layers = lavolta_layer_count(test.model);
    test.rounds = rounds;
    for (const std::vector<uint32_t>& lengths : {std::vector<uint32_t>{1}, {3, 1, 8}, {17, 5}}) {
        Batch batch;
        batch.lengths = lengths;
        for (const uint32_t length : lengths) {
            for (uint32_t i = 0; i < length; ++i) batch.ids.push_back(static_cast<int32_t>(random() % 3));
        }
        const lavolta_batch view = batch.view();
        size_t rows, columns;
        EXPECT(lavolta_output_shape(test.model, &view, &rows, &columns) == LAVOLTA_OK);
        batch.floats = rows * columns;
        for (uint32_t level = 0; level < test.levels; ++level) {
            EXPECT(lavolta_switch(test.model, level) == LAVOLTA_OK);
            batch.answers.emplace_back(batch.floats);
            EXPECT(lavolta_run(test.model, &view, batch.answers.back().data(), batch.floats) == LAVOLTA_OK);
        }
        test.batches.push_back(std::move(batch));
    }
    calibrate_once(test, random);
    char* plan = lavolta_plan(test.model);
    EXPECT(plan);
    test.plan = plan;
    lavolta_free(plan);
    return test;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: model_test BUNDLE ROUNDS SEED\n");
        return 2;
    }
    refuse_unaddressable_sizes();
    Random random(static_cast<uint32_t>(std::atoi(argv[3])));
    close_under_sessions(argv[1], random);
    for (const uint32_t threads : {1u, 3u}) {
        const Test test = prepare(argv[1], threads, static_cast<size_t>(std::atoi(argv[2])), random);
        std::vector<std::thread> workers;
        for (const auto body : {run_at_any_level, run_at_any_level, run_within_deadlines, grow_sessions, switch_levels,
                                cancel_and_look, change_plans, calibrate_once}) {
            workers.emplace_back(body, std::cref(test), Random(random()));
        }
        for (std::thread& worker : workers) worker.join();
        lavolta_close(test.model);
    }
    return 0;
}
