// Gated activations for any register type.
#pragma once

#include "../math.h"

namespace lavolta {
namespace {

template <class V>
void gate(const GateArgs& a) {
    size_t i = 0;
    for (; i + V::width <= a.count; i += V::width) {
        V::store(a.values + i, V::mul(activate<V>(V::load(a.gate + i), a.activation), V::load(a.values + i)));
    }
    if (i == a.count) return;
    float gates[V::width] = {}, values[V::width] = {};
    for (size_t j = i; j < a.count; ++j) {
        gates[j - i] = a.gate[j];
        values[j - i] = a.values[j];
    }
    V::store_first(a.values + i, V::mul(activate<V>(V::load(gates), a.activation), V::load(values)), a.count - i);
}

}  // namespace
}  // namespace lavolta
