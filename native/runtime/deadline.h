// Runs that keep a deadline: before each layer the clock is compared with the plan, and the rest gets the densest levels that
// still arrive in time.
#pragma once

#include <cstdint>
#include <vector>

#include "model.h"
#include "plan.h"

namespace lavolta {

// A clock that the caller may inject; time that goes backwards counts as no time.
class Clock {
   public:
    Clock(lavolta_clock read, void* user);

    // Nanoseconds since the last call, at least 0.
    double tick();

   private:
    uint64_t now() const;

    lavolta_clock read_;
    void* user_;
    uint64_t last_;
};

// What the costs of a plan depend on, for the sequences of one pass.
struct PassWork {
    double tokens, squares, rows;
};
PassWork work_of(const Bundle& bundle, const lavolta_batch& batch, size_t first, size_t sequences);

// A unit is one layer of one pass. The remaining units always have two neighboring levels at most: first `dense_left` units at
// the denser one, then the sparser one. All such choices form one chain from "all at the level that is set" to "all at the
// sparsest", so a longer deadline never gives a unit a sparser level as long as the costs are as predicted.
class DeadlineCourse : public Course {
   public:
    // `levels` is (sequences, layers); an entry is written just before its layer runs.
    DeadlineCourse(const Model& model, const lavolta_batch& batch, const Plan& plan, const lavolta_deadline& deadline,
                   uint32_t* levels);

    void begin(uint32_t level) override;
    uint32_t level_of(size_t layer, size_t first, size_t sequences) override;
    void layers_done() override;
    void pass_done() override;

    double elapsed_ns() const { return elapsed_ns_; }
    bool met() const { return elapsed_ns_ <= deadline_ns_; }

   private:
    struct Choice {
        uint32_t level;     // of the next `dense_left` units; those after them have the next sparser one
        size_t dense_left;  // 0 to the number of units left
    };

    void tick() { elapsed_ns_ += clock_.tick(); }
    double rest_ns(const Choice& choice) const;
    double slack_ns(const Choice& choice) const { return aim_ns_ - elapsed_ns_ - pace_ * rest_ns(choice); }
    Choice densest() const;
    void learn();

    const Model& model_;
    const lavolta_batch& batch_;
    const Plan& plan_;
    const double deadline_ns_, aim_ns_;
    uint32_t* levels_;
    Clock clock_;
    double elapsed_ns_ = 0.0;
    // How much longer layers take than predicted.
    double pace_ = 1.0;
    double predicted_ns_ = 0.0, taken_ns_ = 0.0;  // all layers that ran

    uint32_t cap_ = 0, count_ = 0;            // the densest level that is allowed; levels of the model
    size_t units_ = 0, unit_ = 0, pass_ = 0;  // all, the next one, its pass
    // Predicted times. The end of a pass counts with its last layer, whose level it has.
    std::vector<double> before_ns_;  // (levels, units + 1): of the units before
    std::vector<double> finish_ns_;  // (levels, passes): of the end of a pass, for each level of its last layer
    std::vector<double> embed_ns_;   // (passes): of the beginnings of later passes
    Choice choice_{};
    double promised_ns_ = 0.0;  // slack when the choice was made
    double began_ns_ = 0.0;     // of the unit that runs
    uint32_t running_ = 0;      // its level
};

// `lavolta_run_within` and `lavolta_calibrate`.
void run_within(Model& model, const lavolta_batch& batch, const lavolta_deadline& deadline, float* output,
                size_t output_floats, uint32_t* levels, lavolta_timing& timing);
Plan calibrate(Model& model, const lavolta_calibration& options);

}  // namespace lavolta
