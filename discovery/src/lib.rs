//! Who is where: nothing here yet but the place for it.
#![forbid(unsafe_code)]
