#include <algorithm>

#include "queue.h"

namespace root_optimizer::cpu {

void CpuQueue::add_identity(const Operand& out, const Operand& z, float a, float b) {
  const PanelLayout square = layout(z);
  for_each(square.panels(), [&](int64_t panel) {
    const float* from = floats(z) + panel * square.pitch();
    float* to = floats(out) + panel * square.pitch();
    std::transform(from, from + square.padded_rows() * square.width, to, [b](float value) { return b * value; });
    const int64_t first = panel * square.width;
    for (int64_t i = first; i < std::min(first + square.width, square.columns); ++i) {
      to[i * square.width + i - first] += a;
    }
  });
}

}  // namespace root_optimizer::cpu
