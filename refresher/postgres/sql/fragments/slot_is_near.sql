-- Slots are reserved as far ahead as this. A pause, and the wait of an isolated account, lie behind.
next_slot_at <= now() + {{ horizon }}
