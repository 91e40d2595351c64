// Threads that share the items of one loop, and block when there is none.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "cores.h"

namespace lavolta {

class Pool {
   public:
    // `threads` counts the caller. Idle workers spin for `spin_us` before they block, and stay on `cores` unless it is empty.
    Pool(uint32_t threads, uint32_t spin_us, std::vector<uint32_t> cores = {});
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }
    const std::vector<uint32_t>& cores() const { return cores_; }

    // body(item, thread) for every item in [0, items), fewer than 2^32, in any order; thread < threads(). Returns when all are
    // done. One caller at a time. The body must not throw.
    void run(size_t items, const std::function<void(size_t, uint32_t)>& body);

    // While one lives, jobs follow each other closely: workers wait a little for the next one before they block, and the calling
    // thread stays on the pool's cores.
    class Burst {
       public:
        explicit Burst(Pool& pool) : pool_(pool), guard_(pool.cores_) {
            pool_.burst_.store(true);
            // Threads wake while the caller prepares the first job.
            if (pool_.sleepers_.load() > 0) pool_.publish(nullptr, 0);
        }
        ~Burst() { pool_.burst_.store(false); }
        Burst(const Burst&) = delete;
        Burst& operator=(const Burst&) = delete;

       private:
        Pool& pool_;
        CoreGuard guard_;
    };

   private:
    using Body = std::function<void(size_t, uint32_t)>;

    uint32_t publish(const Body* body, size_t items);
    void work(uint32_t thread);
    void drain(uint32_t job, uint32_t thread);
    bool wait_for_job(uint32_t seen);
    uint32_t job() const { return static_cast<uint32_t>(ticket_.load() >> 32); }
    template <class Condition>
    bool spin(const Condition& condition) const;

    uint32_t spin_us_;
    std::vector<uint32_t> cores_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<bool> stop_{false}, burst_{false};
    // Counted before the last look at what is waited for, and read after that was changed, all in one order: who changes it
    // either sees the sleeper or is seen by it, and needs neither lock nor system call while nobody sleeps.
    std::atomic<uint32_t> sleepers_{0};
    std::atomic<bool> caller_sleeps_{false};
    std::atomic<const Body*> body_{nullptr};
    std::atomic<size_t> items_{0};
    // On cache lines of their own: every item changes both.
    // Number of the present job in the upper half, its next item in the lower: a worker that wakes late cannot take an item of
    // a job that it does not know, so nobody has to wait for those that took none.
    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<size_t> finished_{0};
};

}  // namespace lavolta
