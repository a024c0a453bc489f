//! Breaks real clusters and proves that nothing acknowledged is lost.
