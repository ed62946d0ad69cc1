-- A video in the state that an operator names; NULL: any. Missing, gone and expired as `status`
-- counts them.
CASE :wanted::text
WHEN 'missing' THEN v.missing_since IS NOT NULL AND v.gone_at IS NULL
WHEN 'gone' THEN v.gone_at IS NOT NULL
WHEN 'rejected' THEN v.refusal IS NOT NULL
WHEN 'expired' THEN v.covered AND v.cover_expires_at <= now() AND v.missing_since IS NULL
                    AND v.gone_at IS NULL AND a.state = 'active'
ELSE true END
