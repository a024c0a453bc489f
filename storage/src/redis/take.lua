-- Decides over all demands of one request, as hub_core::limit::decide does, on this server's clock.
-- KEYS: the caller's if there is one, then the targets'.
-- ARGV: 1 if all or none; 1 if there is a caller; most permits of a demand; then for each key: microseconds between two
-- permits, most permits saved, permits wanted.
-- A key holds the moment at which all its permits are saved again, and lives until then. Moments are microseconds since
-- 2026, so that a Lua number holds nanoseconds too.
-- Answers for each key: 0 taken, 1 refused, 2 spared; permits left; microseconds to wait; microseconds until full.
local time = redis.call('TIME')
local now = (time[1] - 1767225600) * 1000000 + time[2]
local whole, callers, most = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3])

local demands = {}
for i, key in ipairs(KEYS) do
  local at = 3 * i
  local one = { interval = tonumber(ARGV[at + 1]), burst = tonumber(ARGV[at + 2]), permits = tonumber(ARGV[at + 3]) }
  -- What somebody else put here is no debt, nor is one that no demand can have made: the clock was set back.
  local kept = redis.pcall('GET', key)
  local full = type(kept) == 'string' and tonumber(kept) or 0
  local debt = full - now
  one.debt = debt > 0 and debt <= one.interval * math.max(one.burst, most) and debt or 0
  demands[i] = one
end

local function wait(one)
  return math.max(one.debt - one.interval * math.max(one.burst - one.permits, 0), 0)
end

local refused = 0
for i = callers + 1, #demands do
  local one = demands[i]
  -- Less than ten nanoseconds is the rounding of what was kept.
  one.has = wait(one) < 0.01
  if not one.has then refused = refused + one.permits end
end
local passes = not (whole and refused > 0)
if callers == 1 then
  local one = demands[1]
  if not whole then one.permits = math.max(one.permits - refused, 0) end
  one.has = one.permits == 0 or wait(one) < 0.01
  passes = passes and one.has
end

local answer = {}
for i, one in ipairs(demands) do
  local fate, waits = 2, 0
  if not one.has then
    fate, waits = 1, wait(one)
  elseif passes and one.permits > 0 then
    fate, one.debt = 0, one.debt + one.interval * one.permits
    redis.call('SET', KEYS[i], string.format('%.3f', now + one.debt), 'PX', math.ceil(one.debt / 1000) + 1)
  end
  local left = math.max(one.burst - math.ceil(one.debt / one.interval - 0.000001), 0)
  for _, number in ipairs({ fate, left, math.ceil(waits), math.ceil(one.debt) }) do answer[#answer + 1] = number end
end
return answer
