"""The embedded painter of defects: shape, relief, light and texture drawn from a plan, the exact mask with them."""
