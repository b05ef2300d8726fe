//! The Fulmar media driver.
