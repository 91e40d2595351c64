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

    // body(item, thread) for every item in [0, items), in any order; thread < threads(). Returns when all are done. One caller
    // at a time. The body must not throw.
    void run(size_t items, const std::function<void(size_t, uint32_t)>& body);

   private:
    void work(uint32_t thread);
    void drain(uint32_t thread);
    bool wait_for_job(uint64_t seen);

    uint32_t spin_us_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<uint64_t> job_{0};  // number of the present job
    std::atomic<bool> stop_{false};
    const std::function<void(size_t, uint32_t)>* body_ = nullptr;
    size_t items_ = 0;
    std::atomic<size_t> next_{0};
    std::atomic<size_t> busy_{0};  // workers that have not finished the present job
};

}  // namespace lavolta
