// Activations for any register type, in place.
#pragma once

#include "../math.h"

namespace lavolta {
namespace {

template <class V>
void activation(const ActivationArgs& a) {
    size_t i = 0;
    for (; i + V::width <= a.count; i += V::width) {
        V::store(a.values + i, activate<V>(V::load(a.values + i), a.activation));
    }
    if (i == a.count) return;
    float rest[V::width] = {};
    for (size_t j = i; j < a.count; ++j) rest[j - i] = a.values[j];
    V::store_first(a.values + i, activate<V>(V::load(rest), a.activation), a.count - i);
}

}  // namespace
}  // namespace lavolta
