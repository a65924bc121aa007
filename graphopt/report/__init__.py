"""Results for machines (`schema`: one versioned JSON) and for people (`terminal`: tables; `html`: a page)."""
