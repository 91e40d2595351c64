#include "deadline.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <new>

#include "error.h"

namespace lavolta {
namespace {

// A pause that lasted many layers' time says nothing of the next ones: no pace is believed beyond this.
constexpr double kSlowest = 8.0;

uint64_t system_clock(void*) {
    return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

double deadline_of(const lavolta_deadline& deadline) {
    if (std::isnan(deadline.deadline_ms)) {
        fail(LAVOLTA_INVALID_ARGUMENT, "deadline_ms is not a number; give milliseconds, or infinity for no deadline.");
    }
    return deadline.deadline_ms * 1e6;
}

}  // namespace

Clock::Clock(lavolta_clock read, void* user) : read_(read ? read : system_clock), user_(user), last_(now()) {}

uint64_t Clock::now() const { return read_(user_); }

double Clock::tick() {
    const uint64_t present = now();
    const double passed = present > last_ ? static_cast<double>(present - last_) : 0.0;
    last_ = present;
    return passed;
}

PassWork work_of(const Bundle& bundle, const lavolta_batch& batch, size_t first, size_t sequences) {
    size_t tokens = 0;
    double squares = 0.0;
    for (size_t s = first; s < first + sequences; ++s) {
        tokens += batch.lengths[s];
        squares += static_cast<double>(batch.lengths[s]) * batch.lengths[s];
    }
    const bool row_per_token = batch.per_token || bundle.spec.pooling == Pooling::none;
    return {static_cast<double>((tokens + kTokenPad - 1) / kTokenPad * kTokenPad), squares,
            static_cast<double>(row_per_token ? tokens : sequences)};
}

DeadlineCourse::DeadlineCourse(const Model& model, const lavolta_batch& batch, const Plan& plan,
                               const lavolta_deadline& deadline, uint32_t* levels)
    : model_(model),
      batch_(batch),
      plan_(plan),
      deadline_ns_(deadline_of(deadline)),
      aim_ns_(std::floor(deadline_ns_ / (1.0 + plan.margin))),
      levels_(levels),
      clock_(deadline.clock, deadline.user) {}

void DeadlineCourse::begin(uint32_t level) {
    const Bundle& bundle = model_.bundle();
    cap_ = level;
    count_ = static_cast<uint32_t>(bundle.levels.size());
    std::vector<PassWork> passes;
    for (size_t first = 0; first < batch_.sequences;) {
        const size_t sequences = model_.pass_sequences(batch_, first);
        passes.push_back(work_of(bundle, batch_, first, sequences));
        first += sequences;
    }
    const size_t layers = bundle.layers.size();
    // More than 32 bits can count is more than such a machine has.
    if (count_ * (uint64_t{passes.size()} * layers + 1) > SIZE_MAX / sizeof(double)) throw std::bad_alloc();
    units_ = passes.size() * layers;
    before_ns_.assign(count_ * (units_ + 1), 0.0);
    finish_ns_.assign(count_ * passes.size(), 0.0);
    for (size_t unit = 0; unit < units_; ++unit) {
        const size_t pass = unit / layers, layer = unit % layers;
        const PassWork& work = passes[pass];
        double sparser = 0.0;
        for (uint32_t l = count_; l-- > 0;) {
            // Whole nanoseconds add up exactly. A level never counts as cheaper than the next sparser one, so the chain of
            // choices is ordered by time.
            double cost = std::round(plan_.layers[layer][l].ns(work.tokens, work.squares));
            if (layer + 1 == layers) {
                const Cost& finish = batch_.per_token ? plan_.finish_per_token : plan_.finish[l];
                finish_ns_[l * passes.size() + pass] = std::round(finish.ns(work.tokens, work.rows));
                cost += finish_ns_[l * passes.size() + pass];
            }
            sparser = std::max(sparser, cost);
            double* before = before_ns_.data() + l * (units_ + 1) + unit;
            before[1] = before[0] + sparser;
        }
    }
    embed_ns_.assign(passes.size(), 0.0);
    for (size_t pass = passes.size() - 1; pass > 0; --pass) {
        embed_ns_[pass - 1] = embed_ns_[pass] + std::round(plan_.embed.ns(passes[pass].tokens, 0.0));
    }
}

double DeadlineCourse::rest_ns(const Choice& choice) const {
    const double* dense = before_ns_.data() + choice.level * (units_ + 1);
    const double* sparse = before_ns_.data() + std::min(choice.level + 1, count_ - 1) * (units_ + 1);
    const size_t turn = unit_ + choice.dense_left;
    return dense[turn] - dense[unit_] + sparse[units_] - sparse[turn] + embed_ns_[pass_];
}

DeadlineCourse::Choice DeadlineCourse::densest() const {
    const size_t left = units_ - unit_;
    Choice choice{cap_, left};
    while (choice.level + 1 < count_ && slack_ns(choice) < 0.0) ++choice.level;
    if (choice.level == cap_ || slack_ns(choice) < 0.0) return choice;
    // All units fit at this level, not at the denser one: how many fit there?
    size_t fit = 0, too_many = left;
    while (fit + 1 < too_many) {
        const size_t middle = fit + (too_many - fit) / 2;
        (slack_ns({choice.level - 1, middle}) < 0.0 ? too_many : fit) = middle;
    }
    return fit > 0 ? Choice{choice.level - 1, fit} : choice;
}

// Compare the unit that ran with its prediction. The mean of all layers so far knows other work that comes and goes, the newest
// layer knows what has just begun: the slower one is believed.
void DeadlineCourse::learn() {
    const double* before = before_ns_.data() + running_ * (units_ + 1) + unit_;
    double predicted = before[0] - before[-1];
    if (unit_ % model_.bundle().layers.size() == 0) predicted -= finish_ns_[running_ * embed_ns_.size() + pass_];
    if (predicted <= 0.0) return;
    const double taken = elapsed_ns_ - began_ns_;
    predicted_ns_ += predicted;
    taken_ns_ += taken;
    pace_ = std::min(std::max({taken / predicted, taken_ns_ / predicted_ns_, 1.0}), kSlowest);
}

uint32_t DeadlineCourse::level_of(size_t layer, size_t first, size_t sequences) {
    tick();
    if (layer > 0) learn();
    // A choice is kept until it does not fit any more, or time was gained: costs that are as predicted change no choice.
    const bool fresh = unit_ == 0;
    if (fresh || slack_ns(choice_) < 0.0 || slack_ns(choice_) > promised_ns_) {
        choice_ = densest();
        promised_ns_ = slack_ns(choice_);
    }
    running_ = choice_.dense_left > 0 ? choice_.level : std::min(choice_.level + 1, count_ - 1);
    if (choice_.dense_left > 0) --choice_.dense_left;
    ++unit_;
    began_ns_ = elapsed_ns_;
    const size_t layers = model_.bundle().layers.size();
    for (size_t s = first; s < first + sequences; ++s) levels_[s * layers + layer] = running_;
    return running_;
}

void DeadlineCourse::layers_done() {
    tick();
    learn();
    ++pass_;
}

void DeadlineCourse::pass_done() { tick(); }

void run_within(Model& model, const lavolta_batch& batch, const lavolta_deadline& deadline, float* output,
                size_t output_floats, uint32_t* levels, lavolta_timing& timing) {
    const std::shared_ptr<const Plan> plan = model.plan();
    if (!plan) fail(LAVOLTA_NO_PLAN, "the model has no plan of its costs; calibrate it, or load a plan, first.");
    DeadlineCourse course(model, batch, *plan, deadline, levels);
    model.run(batch, output, output_floats, course);
    timing = {course.elapsed_ns() / 1e6, course.met()};
}

}  // namespace lavolta
