#include "pool.h"

#include <chrono>

namespace lavolta {

Pool::Pool(uint32_t threads, uint32_t spin_us) : spin_us_(spin_us) {
    try {
        for (uint32_t thread = 1; thread < threads; ++thread) workers_.emplace_back(&Pool::work, this, thread);
    } catch (...) {
        // The destructor does not run for a half-built pool, and a joinable thread must not be destroyed.
        stop_ = true;
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
        throw;
    }
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(size_t items, const std::function<void(size_t, uint32_t)>& body) {
    if (workers_.empty() || items <= 1) {
        for (size_t item = 0; item < items; ++item) body(item, 0);
        return;
    }
    {
        std::lock_guard<std::mutex> lock(mutex_);
        body_ = &body;
        items_ = items;
        next_.store(0, std::memory_order_relaxed);
        busy_.store(workers_.size(), std::memory_order_relaxed);
        job_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    drain(0);
    // Spin for the last items as long as an idle worker would, then block.
    const auto limit = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us_);
    while (busy_.load(std::memory_order_acquire) != 0) {
        if (std::chrono::steady_clock::now() >= limit) {
            std::unique_lock<std::mutex> lock(mutex_);
            done_.wait(lock, [this] { return busy_.load(std::memory_order_acquire) == 0; });
        }
    }
}

void Pool::drain(uint32_t thread) {
    while (true) {
        const size_t item = next_.fetch_add(1, std::memory_order_relaxed);
        if (item >= items_) return;
        (*body_)(item, thread);
    }
}

bool Pool::wait_for_job(uint64_t seen) {
    if (spin_us_ > 0) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us_);
        while (std::chrono::steady_clock::now() < limit) {
            if (job_.load(std::memory_order_acquire) != seen) return true;
            if (stop_) return false;
        }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return stop_ || job_.load(std::memory_order_acquire) != seen; });
    return !stop_;
}

void Pool::work(uint32_t thread) {
    for (uint64_t seen = 0; wait_for_job(seen);) {
        // A new job starts only after every worker has left the present one, so none is ever skipped.
        ++seen;
        drain(thread);
        if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            std::lock_guard<std::mutex> lock(mutex_);
            done_.notify_one();
        }
    }
}

}  // namespace lavolta
