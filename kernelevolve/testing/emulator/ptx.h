// PTX instructions that kernels name in inline assembly, under the instruction's name with _ for every other sign.
// Operands come in the order of the statement: outputs first.
#pragma once

namespace emulated::ptx {

inline void* shared_address(uint32_t address) { return dynamic_memory + static_cast<int32_t>(address); }

// All lanes' registers, as the first lane to ask gathers them: an instruction of the whole warp.
template <size_t N>
void gather(const uint32_t (&own)[N], uint32_t (&all)[32][N]) {
  for (size_t i = 0; i < N; ++i) {
    const auto* heard = exchange(~0u, own[i]);
    for (unsigned lane = 0; lane < 32; ++lane) all[lane][i] = said<uint32_t>(heard, lane);
  }
}

template <float (*kWiden)(uint16_t)>
void mma_m16n8k16(float& d0, float& d1, float& d2, float& d3, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                  uint32_t b0, uint32_t b1, float c0, float c1, float c2, float c3) {
  const uint32_t own[6] = {a0, a1, a2, a3, b0, b1};
  uint32_t all[32][6];
  gather(own, all);
  const auto half = [](uint32_t pair, int k) { return kWiden(static_cast<uint16_t>(pair >> 16 * (k & 1))); };
  // Row r of A: lanes 4 * (r % 8) to + 3; registers 0 and 2 hold the rows below 8, 1 and 3 the others.
  const auto a = [&](int r, int k) { return half(all[r % 8 * 4 + k % 8 / 2][(r / 8) + 2 * (k / 8)], k); };
  const auto b = [&](int k, int n) { return half(all[n * 4 + k % 8 / 2][4 + k / 8], k); };
  const int row = lane() / 4, column = lane() % 4 * 2;
  float* d[4] = {&d0, &d1, &d2, &d3};
  const float c[4] = {c0, c1, c2, c3};
  for (int i = 0; i < 4; ++i) {
    float sum = c[i];
    for (int k = 0; k < 16; ++k) sum += a(row + i / 2 * 8, k) * b(k, column + i % 2);
    *d[i] = sum;
  }
}

inline float of_bf16(uint16_t bits) { return __bfloat162float({bits}); }
inline float of_f16(uint16_t bits) { return __half2float({bits}); }

template <typename... O>
void mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32(O&&... o) { mma_m16n8k16<of_bf16>(o...); }
template <typename... O>
void mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32(O&&... o) { mma_m16n8k16<of_f16>(o...); }

// Lane 8 * i + r names row r of matrix i; each lane gets two neighbours of a row (of a column, transposed).
inline void load_matrices(uint32_t* const* registers, int count, uint32_t address, bool transposed) {
  const auto* heard = exchange(~0u, address);
  for (int i = 0; i < count; ++i) {
    uint16_t pair[2];
    for (int j = 0; j < 2; ++j) {
      const int pair_at = lane() % 4 * 2 + j, alone = lane() / 4;
      const int row = transposed ? pair_at : alone, column = transposed ? alone : pair_at;
      const auto* at = static_cast<const uint16_t*>(shared_address(said<uint32_t>(heard, 8 * i + row)));
      if (reinterpret_cast<uintptr_t>(at) % 16) fail("ldmatrix reads a row that isn't aligned to 16 bytes");
      pair[j] = at[column];
    }
    *registers[i] = pair[0] | uint32_t{pair[1]} << 16;
  }
}
inline void ldmatrix_sync_aligned_m8n8_x4_shared_b16(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d,
                                                     uint32_t from) {
  uint32_t* const registers[] = {&a, &b, &c, &d};
  load_matrices(registers, 4, from, false);
}
inline void ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d,
                                                           uint32_t from) {
  uint32_t* const registers[] = {&a, &b, &c, &d};
  load_matrices(registers, 4, from, true);
}

inline void perform(const Copy& copy) {
  std::memcpy(copy.to, copy.from, copy.valid);
  std::memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
}
inline void copy_async(uint32_t to, const void* from, size_t bytes, size_t valid) {
  const Copy copy{shared_address(to), from, bytes, valid};
  if (to % bytes || reinterpret_cast<uintptr_t>(from) % bytes) fail("an asynchronous copy isn't aligned to its size");
  const bool at_once = order == 0 || (order > 1 && random_order() % 2);
  if (at_once) perform(copy);
  else fibers[self].open.push_back(copy);
  if (at_once) fibers[self].open.push_back({copy.to, copy.from, 0, 0});  // still has to be committed
}
inline void cp_async_cg_shared_global(uint32_t to, const void* from, size_t bytes, uint32_t valid) {
  copy_async(to, from, bytes, valid);
}
inline void cp_async_ca_shared_global(uint32_t to, const void* from, size_t bytes, uint32_t valid) {
  copy_async(to, from, bytes, valid);
}
inline void cp_async_commit_group() {
  Fiber& fiber = fibers[self];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}
inline void cp_async_wait_group(size_t left) {
  auto& groups = fibers[self].groups;
  while (groups.size() > left) {
    for (const Copy& copy : groups.front()) perform(copy);
    groups.erase(groups.begin());
  }
}

}  // namespace emulated::ptx
