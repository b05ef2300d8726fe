//! Channel URIs.
