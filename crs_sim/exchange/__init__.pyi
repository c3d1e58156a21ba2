from .petab_export import Exported as Exported, LeftOut as LeftOut, export_petab as export_petab
