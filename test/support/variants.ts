/** How pages are looked at: on a telephone and on a desk, by day and by night. Widths are in CSS pixels. */
export const VARIANTS = [
  { label: 'wide, light', width: 1280, colorScheme: 'light' },
  { label: 'wide, dark', width: 1280, colorScheme: 'dark' },
  { label: 'narrow, light', width: 360, colorScheme: 'light' },
  { label: 'narrow, dark', width: 360, colorScheme: 'dark' },
] as const
