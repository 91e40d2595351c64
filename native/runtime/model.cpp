#include "model.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "error.h"

namespace lavolta {

std::string isa_names() {
    std::string names;
    for (int i = 0; i < kIsaCount; ++i) {
        const auto isa = static_cast<Isa>(i);
        if (isa_built(isa)) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    }
    return names;
}

Isa isa_option(const char* name) {
    if (!name) name = std::getenv("LAVOLTA_ISA");
    if (!name || !*name) return static_cast<Isa>(kIsaCount - 1);
    for (int i = 0; i < kIsaCount; ++i) {
        const auto isa = static_cast<Isa>(i);
        if (isa_built(isa) && std::strcmp(name, isa_name(isa)) == 0) return isa;
    }
    fail(LAVOLTA_INVALID_ARGUMENT, std::string("the instruction set '") + name + "' is unknown to this build; choose one of " + isa_names() + ".");
}

namespace {

uint32_t thread_option(uint32_t threads) {
    if (threads > 256) fail(LAVOLTA_INVALID_ARGUMENT, "threads is " + std::to_string(threads) + "; choose 1 to 256.");
    return std::max(threads, 1u);
}

}  // namespace

float* Buffer::reserve(uint64_t floats) {
    if (floats > size_) {
        constexpr size_t line = 64;  // bytes
        if (floats > (SIZE_MAX - line) / sizeof(float)) throw std::bad_alloc();
        data_.reset();
        size_ = 0;
        const size_t bytes = (static_cast<size_t>(floats) * sizeof(float) + line - 1) / line * line;
        void* memory = std::aligned_alloc(line, bytes);
        if (!memory) throw std::bad_alloc();
        // Padding is computed on like tokens are: it must be numbers.
        std::memset(memory, 0, bytes);
        data_.reset(static_cast<float*>(memory));
        size_ = static_cast<size_t>(floats);
    }
    return data_.get();
}

void Buffer::Free::operator()(float* p) const { std::free(p); }

Model::Model(std::unique_ptr<MappedFile> file, const uint8_t* data, size_t bytes, const lavolta_options& options)
    : file_(std::move(file)),
      bundle_(data, bytes),
      kernels_(select_kernels(isa_option(options.isa))),
      pool_(thread_option(options.threads), options.spin_us,
            choose_cores({options.cores, options.cores + options.core_count}, thread_option(options.threads))),
      profiles_(bundle_.levels.size()),
      token_profiles_(bundle_.levels.size()) {}

void Model::switch_level(uint32_t level) {
    if (level >= bundle_.levels.size()) {
        fail(LAVOLTA_NO_SUCH_LEVEL, "there is no level " + std::to_string(level) + "; the bundle has levels 0 to " +
                                        std::to_string(bundle_.levels.size() - 1) + ".");
    }
    level_.store(level, std::memory_order_relaxed);
}

void Model::check(const lavolta_batch& batch) const {
    const Spec& spec = bundle_.spec;
    if (batch.sequences == 0 || !batch.lengths || !batch.token_ids) fail(LAVOLTA_EMPTY_INPUT, "the batch is empty; give at least one sequence.");
    size_t token = 0;
    for (size_t s = 0; s < batch.sequences; ++s) {
        const std::string where = " of sequence " + std::to_string(s);
        if (batch.lengths[s] == 0) fail(LAVOLTA_EMPTY_INPUT, "sequence " + std::to_string(s) + " has no tokens; leave it out.");
        if (batch.lengths[s] > spec.max_tokens) {
            fail(LAVOLTA_TOO_LONG, "sequence " + std::to_string(s) + " has " + std::to_string(batch.lengths[s]) +
                                       " tokens, the model's limit is " + std::to_string(spec.max_tokens) + "; shorten it.");
        }
        check_tokens(batch.token_ids + token, batch.lengths[s], where);
        for (uint32_t i = 0; i < batch.lengths[s]; ++i, ++token) {
            if (!batch.type_ids) continue;
            const int32_t type = batch.type_ids[token];
            if (type < 0 || static_cast<uint32_t>(type) >= std::max(spec.types, 1u)) {
                fail(LAVOLTA_TOKEN_OUT_OF_RANGE, "token " + std::to_string(i) + where + " has type " + std::to_string(type) +
                                                     "; types go from 0 to " + std::to_string(std::max(spec.types, 1u) - 1) + ".");
            }
        }
    }
}

void Model::check_tokens(const int32_t* token_ids, size_t count, const std::string& where) const {
    const uint32_t vocab = bundle_.spec.vocab;
    for (size_t i = 0; i < count; ++i) {
        if (token_ids[i] >= 0 && static_cast<uint32_t>(token_ids[i]) < vocab) continue;
        fail(LAVOLTA_TOKEN_OUT_OF_RANGE, "token " + std::to_string(i) + where + " has id " + std::to_string(token_ids[i]) +
                                             "; ids go from 0 to " + std::to_string(vocab - 1) + ".");
    }
}

void Model::output_shape(const lavolta_batch& batch, size_t& rows, size_t& columns) const {
    const Spec& spec = bundle_.spec;
    columns = batch.per_token || spec.outputs == 0 ? spec.hidden : spec.outputs;
    rows = batch.sequences;
    if (batch.per_token || spec.pooling == Pooling::none) {
        rows = 0;
        for (size_t s = 0; s < batch.sequences; ++s) rows += batch.lengths[s];
    }
}

std::shared_ptr<const Plan> Model::plan() const {
    std::lock_guard<std::mutex> lock(plan_mutex_);
    return plan_;
}

void Model::set_plan(Plan plan) {
    check_plan(plan, blank_plan());
    auto shared = std::make_shared<const Plan>(std::move(plan));
    std::lock_guard<std::mutex> lock(plan_mutex_);
    plan_.swap(shared);
}

Plan Model::blank_plan() const {
    Plan plan;
    plan.bundle = mark_of(bundle_.manifest);
    plan.isa = isa_name(kernels_.linear_isa);
    if (kernels_.linear_int8_isa != kernels_.linear_isa) plan.isa += std::string("+") + isa_name(kernels_.linear_int8_isa);
    plan.threads = pool_.threads();
    plan.finish.resize(bundle_.levels.size());
    plan.layers.assign(bundle_.layers.size(), plan.finish);
    return plan;
}

void Model::profile(bool enabled) {
    std::lock_guard<std::mutex> lock(run_mutex_);
    profiling_ = enabled;
    for (std::vector<Profile>* profiles : {&profiles_, &token_profiles_}) {
        for (Profile& profile : *profiles) {
            profile = {};
            if (enabled) profile.layer_ms.resize(bundle_.layers.size());
        }
    }
}

}  // namespace lavolta
