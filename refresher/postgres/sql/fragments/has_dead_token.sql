-- In trouble for its access token alone: an isolated account is listed as isolated.
(NOT {{ is_troubled }} AND {{ token_stays_dead }})
