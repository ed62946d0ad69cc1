-- Releases leases. Locked rows are skipped, so only an application's trigger may wait, briefly.
{{ releasing patience="{{ patience }}" }}
