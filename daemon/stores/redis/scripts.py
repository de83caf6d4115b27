"""The scripts that Redis runs, each of them atomic on its one key.

Each gets the domain time (Unix seconds) first, and answers `{odd, done, value}`: whether something was there that is no
conversation (it counts as nothing, and is written over), whether the script did what it is for, and what is stored.
"""

_STORED = """
local now = tonumber(ARGV[1])

local function whole(field)
  return type(field) == 'number' and field >= 0 and field < 1e14 and field == math.floor(field)
end

local function text_or_none(field)
  return field == nil or field == cjson.null or type(field) == 'string'
end

local function is_conversation(value)
  return type(value) == 'table' and type(value.id) == 'string'
    and type(value.provider) == 'string' and type(value.model) == 'string'
    and text_or_none(value.external_id) and text_or_none(value.session_id)
    and whole(value.created_at) and whole(value.last_activity) and whole(value.expires_at)
    and whole(value.request_count) and whole(value.rebind_count)
end

local function stored()
  local kind = redis.call('TYPE', KEYS[1]).ok
  if kind == 'none' then
    return nil, 0
  end
  if kind ~= 'string' then
    return nil, 1
  end
  local decoded, value = pcall(cjson.decode, redis.call('GET', KEYS[1]))
  if not decoded or not is_conversation(value) then
    return nil, 1
  end
  if now >= value.expires_at then
    return nil, 0
  end
  return value, 0
end

local function save(text, ttl)
  redis.call('SET', KEYS[1], text)
  redis.call('EXPIRE', KEYS[1], math.max(1, ttl))
  return text
end

local value, odd = stored()
"""

# Count a use of what is there, or begin with what is offered. ARGV: now, seconds to live, offered value or ''.
USE = (
    _STORED
    + """
local ttl = tonumber(ARGV[2])
if value then
  value.request_count = value.request_count + 1
  value.last_activity = math.max(value.last_activity, now)
  value.expires_at = value.last_activity + ttl
  return {odd, 0, save(cjson.encode(value), ttl)}
end
if ARGV[3] ~= '' then
  return {odd, 1, save(ARGV[3], ttl)}
end
return {odd, 0, false}
"""
)

# What is there, without a use of it. ARGV: now.
READ = (
    _STORED
    + """
return {odd, 0, value and redis.call('GET', KEYS[1]) or false}
"""
)

# Bind to something else where it is bound as expected. ARGV: now, expected provider and model, wanted ones.
REBIND = (
    _STORED
    + """
if not value then
  return {odd, 0, false}
end
if value.provider ~= ARGV[2] or value.model ~= ARGV[3] then
  return {odd, 0, redis.call('GET', KEYS[1])}
end
value.provider, value.model = ARGV[4], ARGV[5]
value.rebind_count = value.rebind_count + 1
local text = cjson.encode(value)
redis.call('SET', KEYS[1], text, 'KEEPTTL')
return {odd, 1, text}
"""
)

# Bring in what the engine holds: the newest use wins, and of one conversation the binding that was changed more often.
# ARGV: now, the engine's value.
MERGE = (
    _STORED
    + """
local offered = cjson.decode(ARGV[2])
local winner = offered
if value then
  local later = value.last_activity - offered.last_activity
  if later > 0 or (later == 0 and value.rebind_count > offered.rebind_count) then
    winner = value
  end
  if value.created_at == offered.created_at then
    local other = winner == offered and value or offered
    if other.rebind_count > winner.rebind_count then
      winner.provider, winner.model, winner.rebind_count = other.provider, other.model, other.rebind_count
    end
    winner.request_count = math.max(winner.request_count, other.request_count)
  end
end
local before = value and redis.call('GET', KEYS[1])
local known = before and cjson.decode(before)
for _, field in ipairs({'provider', 'model', 'created_at', 'last_activity', 'request_count', 'rebind_count'}) do
  if not known or known[field] ~= winner[field] then
    return {odd, 1, save(cjson.encode(winner), winner.expires_at - now)}
  end
end
return {odd, 0, before}
"""
)

# Take away what was not used since its deletion. ARGV: now, time of the deletion.
FORGET = (
    _STORED
    + """
if value and value.last_activity <= tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1])
  return {odd, 1, false}
end
return {odd, 0, false}
"""
)

# Delete what is there, and say what it was. ARGV: now.
REMOVE = (
    _STORED
    + """
if not value then
  return {odd, 0, false}
end
local text = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return {odd, 1, text}
"""
)

# Take back what the engine refused, unless others rely on it: a conversation that was used again, a later rebind.
# ARGV: now, created_at and rebind_count of it, provider and model of before or empty.
UNDO = (
    _STORED
    + """
if not value or value.created_at ~= tonumber(ARGV[2]) or value.rebind_count ~= tonumber(ARGV[3]) then
  return {odd, 0, false}
end
if ARGV[4] == '' then
  if value.request_count > 1 then
    return {odd, 0, false}
  end
  redis.call('DEL', KEYS[1])
  return {odd, 1, false}
end
value.provider, value.model, value.rebind_count = ARGV[4], ARGV[5], value.rebind_count - 1
local text = cjson.encode(value)
redis.call('SET', KEYS[1], text, 'KEEPTTL')
return {odd, 1, text}
"""
)

# Prove that it takes writes; nobody ever sees the key.
PROBE = """
redis.call('SET', KEYS[1], 'probe', 'EX', 1)
redis.call('DEL', KEYS[1])
return {0, 1, false}
"""

ALL = (USE, READ, REBIND, MERGE, FORGET, REMOVE, UNDO, PROBE)
