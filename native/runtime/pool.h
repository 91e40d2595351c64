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

namespace lavolta {

class Pool {
   public:
    // `threads` counts the caller. Idle workers spin for `spin_us` before they block.
    Pool(uint32_t threads, uint32_t spin_us);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }

    // body(item, thread) for every item in [0, items), fewer than 2^32, in any order; thread < threads(). Returns when all are
    // done. One caller at a time. The body must not throw.
    void run(size_t items, const std::function<void(size_t, uint32_t)>& body);

   private:
    using Body = std::function<void(size_t, uint32_t)>;

    void work(uint32_t thread);
    void drain(uint32_t job, uint32_t thread);
    bool wait_for_job(uint32_t seen);
    uint32_t job() const { return static_cast<uint32_t>(ticket_.load(std::memory_order_acquire) >> 32); }

    uint32_t spin_us_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<bool> stop_{false};
    // Number of the present job in the upper half, its next item in the lower: a worker that wakes late cannot take an item of
    // a job that it does not know, so nobody has to wait for those that took none.
    std::atomic<uint64_t> ticket_{0};
    std::atomic<const Body*> body_{nullptr};
    std::atomic<size_t> items_{0};
    std::atomic<size_t> finished_{0};
};

}  // namespace lavolta
