  -- Joins the unit of each item, without points and spaces, and what makes it mGy, mGy.cm, Gy.m2, s,
  -- mm, kV or mA: multiply, or divide, by a whole number, since 0.001 is not exact.
  LEFT JOIN (
    SELECT unit, quantity, times, per
    FROM UNNEST([
      STRUCT('Gy' AS unit, 'dose' AS quantity, 1e3 AS times, 1.0 AS per),
      ('dGy', 'dose', 1e2, 1.0),
      ('cGy', 'dose', 10.0, 1.0),
      ('mGy', 'dose', 1.0, 1.0),
      ('uGy', 'dose', 1.0, 1e3),
      ('Gym', 'dlp', 1e5, 1.0),
      ('mGym', 'dlp', 1e2, 1.0),
      ('Gycm', 'dlp', 1e3, 1.0),
      ('dGycm', 'dlp', 1e2, 1.0),
      ('cGycm', 'dlp', 10.0, 1.0),
      ('mGycm', 'dlp', 1.0, 1.0),
      ('uGycm', 'dlp', 1.0, 1e3),
      ('mGymm', 'dlp', 1.0, 10.0),
      ('Gym2', 'dap', 1.0, 1.0),
      ('dGym2', 'dap', 1.0, 10.0),
      ('cGym2', 'dap', 1.0, 1e2),
      ('mGym2', 'dap', 1.0, 1e3),
      ('uGym2', 'dap', 1.0, 1e6),
      ('Gycm2', 'dap', 1.0, 1e4),
      ('dGycm2', 'dap', 1.0, 1e5),
      ('cGycm2', 'dap', 1.0, 1e6),
      ('mGycm2', 'dap', 1.0, 1e7),
      ('uGycm2', 'dap', 1.0, 1e10),
      ('h', 'time', 3600.0, 1.0),
      ('min', 'time', 60.0, 1.0),
      ('s', 'time', 1.0, 1.0),
      ('ms', 'time', 1.0, 1e3),
      ('m', 'length', 1e3, 1.0),
      ('cm', 'length', 10.0, 1.0),
      ('mm', 'length', 1.0, 1.0),
      ('kV', 'voltage', 1.0, 1.0),
      ('V', 'voltage', 1.0, 1e3),
      ('A', 'current', 1e3, 1.0),
      ('mA', 'current', 1.0, 1.0),
      ('uA', 'current', 1.0, 1e3)
    ])
  ) AS units
    ON units.unit = REGEXP_REPLACE(REGEXP_REPLACE(items.unit, '[ .*^]', ''), '[µμ]', 'u')
