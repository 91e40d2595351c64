// One resident model: a bundle, kernels, threads, and the present level.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle.h"
#include "kernels.h"
#include "lavolta.h"
#include "plan.h"
#include "pool.h"

namespace lavolta {

// Zeroed floats, aligned to a cache line, that only grow.
class Buffer {
   public:
    // Throws std::bad_alloc also where `floats` is more than this machine can address. Counted in 64 bits, because features times
    // tokens pass 32.
    float* reserve(uint64_t floats);

   private:
    struct Free {
        void operator()(float* p) const;
    };
    std::unique_ptr<float[], Free> data_;
    size_t size_ = 0;
};

// The steps that a profiled run measures, once per layer and once per model.
enum class Step : uint8_t { quantize, query, key, value, attention, output, attention_norm, up, gate, down, ffn_norm, count };
enum class Edge : uint8_t { embeddings, final_norm, head, count };

struct Profile {
    uint64_t runs = 0;
    uint64_t tokens = 0, head_tokens = 0;  // that went through the layers, and through the head
    std::vector<std::array<double, static_cast<size_t>(Step::count)>> layer_ms;  // (layers)
    std::array<double, static_cast<size_t>(Edge::count)> edge_ms{};
};

// Chooses the level of every layer on the way. What it throws ends the run.
class Course {
   public:
    virtual ~Course() = default;
    // When the run has the model to itself; `level` is the one that is set then.
    virtual void begin(uint32_t level) = 0;
    // Before layer `layer` of the pass that begins with sequence `first`.
    virtual uint32_t level_of(size_t layer, size_t first, size_t sequences) = 0;
    // After the last layer of a pass, and after its output was written.
    virtual void layers_done() {}
    virtual void pass_done() {}
};

// The best instruction set allowed: `name`, else the environment variable LAVOLTA_ISA, else the last.
Isa isa_option(const char* name);

class Session;

class Model {
   public:
    Model(std::unique_ptr<MappedFile> file, const uint8_t* data, size_t bytes, const lavolta_options& options);

    const Bundle& bundle() const { return bundle_; }
    uint32_t level() const { return level_.load(std::memory_order_relaxed); }
    void switch_level(uint32_t level);
    void output_shape(const lavolta_batch& batch, size_t& rows, size_t& columns) const;
    // At the level that is set when the run begins.
    void run(const lavolta_batch& batch, float* output, size_t output_floats);
    void run(const lavolta_batch& batch, float* output, size_t output_floats, Course& course, bool profiled = false);
    // Sequences from `first` on that go through the layers together, at least one.
    size_t pass_sequences(const lavolta_batch& batch, size_t first) const;
    // Tokens behind those that the session has, at the level that is set when it begins; `output (outputs or hidden)` of the last
    // one, or null. The session is as before where it throws.
    void append(Session& session, const int32_t* token_ids, size_t count, float* output, size_t output_floats);
    void truncate(Session& session, size_t tokens);
    size_t length(const Session& session);
    // Ends the runs that have begun, before their next layer.
    void cancel() { cancels_.fetch_add(1, std::memory_order_relaxed); }
    // Waits for the call of a session that is under way; those that come later throw without a look at the bundle's data.
    void close();
    // The plan for runs with a deadline, or null. `set_plan` throws Error where it was made for something else.
    std::shared_ptr<const Plan> plan() const;
    void set_plan(Plan plan);
    // Marks and sizes of a plan for this model, all costs 0.
    Plan blank_plan() const;
    void profile(bool enabled);
    std::string explain();

   private:
    struct Pass;  // sequences that go through the layers together
    class Rows;   // of `explain`

    void check(const lavolta_batch& batch) const;
    void check_tokens(const int32_t* token_ids, size_t count, const std::string& where) const;
    // For calls of sessions, which may outlive the model; under the run mutex.
    void check_open() const;
    void reserve(Pass& pass);
    void embed(Pass& pass);
    void turn(Pass& pass);
    void encode(Pass& pass, Course& course);
    void rotate(const Pass& pass);
    void attend(const Pass& pass);
    void attend_cached(const Pass& pass, size_t layer);
    void gate(const Pass& pass);
    void normalize(const Pass& pass, const Norm& norm, const float* from, float* to);
    // Quantizes `x (features, stride)` if one of its readers is int8; the bytes stay until the next call.
    void quantize(size_t tokens, size_t stride, const float* x, std::initializer_list<const Linear*> readers);
    uint8_t* quantized(size_t features, size_t tokens);
    // Of one token of a session.
    int8_t* token_quantized(size_t features);
    // An int8 layer reads what was quantized last, not `x`.
    void linear(size_t tokens, const Linear& layer, uint32_t level, const float* x, size_t x_stride, float* y, size_t y_stride,
                const float* residual, Activation activation);
    // Tokens that pass an fp32 layer together.
    size_t linear_block(size_t tokens, const Linear& layer) const;
    // Tokens that the feed-forward part takes at a time, so that `down` finds in the cache what `up` wrote.
    size_t ffn_block(size_t tokens) const;
    void token_linear(const Linear& layer, uint32_t level, const float* x, float* y, const float* residual, Activation activation);
    void dense(const float* weight, const float* bias, uint32_t outputs, Activation activation, const float* x, float* y,
               size_t tokens, size_t stride);
    float* head(const Pass& pass, size_t& rows, size_t& stride);
    void write_rows(const float* from, size_t stride, size_t rows, size_t columns, float* to);
    void explain_token(Rows& rows, uint32_t level);
    // How fast all threads together read the weights of the linear layers.
    double weights_bytes_per_ns();
    template <class Body>
    static void timed(double* ms, const Body& body) {
        if (!ms) return body();
        const auto start = std::chrono::steady_clock::now();
        body();
        *ms += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    }

    std::unique_ptr<MappedFile> file_;
    Bundle bundle_;
    KernelSet kernels_;
    Pool pool_;
    std::atomic<uint32_t> level_{0};
    std::atomic<uint64_t> cancels_{0};  // how often `cancel` was called
    mutable std::mutex plan_mutex_;
    std::shared_ptr<const Plan> plan_;
    std::mutex run_mutex_;
    // Below: used by one run at a time.
    bool closed_ = false;
    bool profiling_ = false;
    std::vector<Profile> profiles_, token_profiles_;  // (levels), of single tokens of sessions the latter
    double weights_bytes_per_ns_ = 0.0;               // 0: not measured yet
    LevelRuns runs_;
    std::vector<Stretch> stretches_;
    Buffer hidden_, next_, work_, angles_, scratch_, head_a_, head_b_, logits_, quantized_, token_scale_;
};

}  // namespace lavolta
